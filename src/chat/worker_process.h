// A child process that answers requests: `python -m bitctl.text` tokenises, renders and decodes, and
// `bitctl.hub` downloads. Requests and replies are JSON lines on a socket of its own; its stdout and stderr
// are read only to tell why it died. Everything here happens on the event loop's thread.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "base/strict_json.h"
#include "base/worker_command.h"

namespace bitctl {

// The token ids in that field of a reply; what is no id is -1.
std::vector<int32_t> token_ids(const Json& reply, std::string_view key);

class WorkerProcess {
 public:
  using Reply = std::function<void(Result<Json>)>;
  using OnDeath = std::function<void(const std::string& reason)>;

  // `name` is what errors call it: "the text worker". `on_death` is called once for each start() that
  // succeeded and whose child ended by itself, or was ended because what it says is no protocol; requests
  // without a reply are forgotten then.
  WorkerProcess(EventLoop& loop, std::string name, OnDeath on_death)
      : loop_(loop), name_(std::move(name)), on_death_(std::move(on_death)) {}
  ~WorkerProcess() { end(); }
  WorkerProcess(const WorkerProcess&) = delete;

  // The socket is the child's descriptor 3, and its last argument says so.
  Status start(WorkerCommand command);
  bool running() const { return static_cast<bool>(process_); }

  // Replies come in the order of the requests. An answer {"error": …} is an Error::invalid; behind one that
  // holds {"more": true}, another reply to the same request comes.
  void ask(Json request, Reply reply);
  // Kills the child; no callback comes any more.
  void end();

 private:
  void watch_socket();
  void read_replies();
  void take_line(const std::string& line);
  void die(const std::string& reason);
  void read_output();
  void send();
  void reap();
  std::string reason_of_death(int status) const;

  EventLoop& loop_;
  const std::string name_;
  OnDeath on_death_;
  Fd process_;  // pidfd
  Fd socket_;
  Fd output_;
  std::string received_;
  std::string unsent_;
  std::string last_output_;
  std::string fatal_;
  std::map<uint64_t, Reply> waiting_;
  uint64_t next_id_ = 1;
};

}  // namespace bitctl
