// The socket that trainers and `bitctl stop|…` connect to. Knows who is who; what is said goes to the
// supervisor.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/seqpacket.h"
#include "watch/messages.h"

namespace bitctl {

class TrainerServer {
 public:
  struct Client {
    int id = 0;
    Hello hello;
  };
  struct Callbacks {
    std::function<void(const Client&)> on_hello;
    std::function<void(const Client&, const Json&)> on_message;
    std::function<void(const Client&, const Json&, std::vector<Fd>)> on_handed;  // a message with descriptors
    std::function<void(const Client&)> on_gone;
  };

  TrainerServer(EventLoop& loop, Callbacks callbacks) : loop_(loop), callbacks_(std::move(callbacks)) {}
  ~TrainerServer();

  // Makes the socket in $XDG_RUNTIME_DIR/bitctl/<run id>-<random> or /tmp/bitctl-<uid>/…, folders of mode
  // 0700.
  Status listen(const std::string& run_id);
  const std::string& path() const { return path_; }

  // From now on only trainers of this attempt with this token are let in; those of an earlier one are closed.
  void expect(int attempt, const std::string& token);

  // Hands on everything that has been said and not yet been read, of the dead, too.
  void read_everything();

  void send(int client, const Json& message, const std::vector<int>& fds = {});
  std::vector<Client> trainers() const;
  // The trainer of that rank; its id is 0 where none is connected.
  int trainer_of(int rank) const;
  int leader() const { return trainer_of(0); }
  int highest_world_size() const;

 private:
  struct Connection {
    Fd fd;
    Peer peer;
    bool known = false;
    Client client;
  };

  void accept();
  bool receive(int id);  // false where nothing was there
  void greet(Connection& connection, const Json& message);
  void refuse(int id, const std::string& reason);
  void drop(int id);

  EventLoop& loop_;
  Callbacks callbacks_;
  std::string folder_;
  std::string path_;
  Fd listener_;
  std::map<int, Connection> connections_;
  int next_id_ = 1;
  int attempt_ = 0;
  std::string token_;
};

}  // namespace bitctl
