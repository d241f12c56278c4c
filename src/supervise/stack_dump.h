// The Python stacks of all threads of a trainer that is silent, written into memory that it was given when it
// connected, so that no disk is in the way. It is asked first: a thread of its own answers. Where that thread
// gets no turn, since C code sits on the interpreter's lock, faulthandler answers a signal; that walks the
// frames of running threads and may crash the process, so it is for one that is to be killed anyway.
// `py-spy`, where it is installed, looks into processes that are not connected.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "launch/spawn.h"

namespace bitctl {

struct Stacks {
  pid_t pid = 0;
  std::string text;  // at most 16 KiB; the kernel's view of its threads comes first
};

class StackDump {
 public:
  enum class Manner { ask, insist };
  using Done = std::function<void(std::vector<Stacks>)>;

  explicit StackDump(EventLoop& loop) : loop_(loop) {}
  ~StackDump();

  // The number of the signal that asks for a dump.
  static int signal();
  // For a process that has connected, to be sent by SCM_RIGHTS: memory, and an eventfd that asks for a dump.
  // Empty where there is none.
  std::vector<int> descriptors_for(int client, pid_t pid);
  // Its handler is in place: from here on the signal does not kill it.
  void ready(int client);
  void forget(int client);

  // Asks every process that is ready, and py-spy for `others`; `done` comes at most `limit` later, with what
  // has arrived. A dump that is under way is given up.
  void take(Manner manner, const std::vector<pid_t>& others, Duration limit, Done done);
  void cancel();
  // The last dump took the signal: whoever got it must not live on.
  bool has_signalled() const { return signalled_; }

 private:
  struct Source {
    pid_t pid = 0;
    Fd pidfd;
    Fd memory;
    Fd request;
    bool ready = false;
    off_t from = 0;  // what it had written before
  };

  void look();
  bool is_complete();
  std::vector<Stacks> collect();

  EventLoop& loop_;
  std::map<int, Source> sources_;  // by client
  std::vector<Source> spied_;
  std::vector<Spawned> spies_;
  std::map<int, off_t> sizes_;  // at the last look, by descriptor
  Mono deadline_;
  Mono patience_;  // then the signal follows
  bool insists_ = false;
  bool signalled_ = false;
  Done done_;
  EventLoop::TimerId timer_ = 0;
};

}  // namespace bitctl
