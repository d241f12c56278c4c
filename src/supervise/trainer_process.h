// The trainer's process and everything it starts, from the spawn until nothing of it is left.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "launch/isolation.h"
#include "launch/spawn.h"

namespace bitctl {

class TrainerProcess {
 public:
  struct Callbacks {
    std::function<void(const ExitStatus&)> on_exit;  // of the leader; the rest of its tree may live on
    std::function<void()> on_gone;                   // after kill(): leader reaped, tree empty
    std::function<void(const std::vector<pid_t>&)> on_unkillable;  // after kill(): these do not die
  };

  TrainerProcess(EventLoop& loop, Callbacks callbacks, Duration unkillable_after = std::chrono::seconds(10))
      : loop_(loop), callbacks_(std::move(callbacks)), unkillable_after_(unkillable_after) {}
  ~TrainerProcess();

  // Errors as of spawn(); then nothing of it is left.
  Status start(SpawnPlan plan, Isolation& isolation, const std::string& name,
               Isolation::Role role = Isolation::Role::attempt);
  // One that runs already, its tree with it.
  void adopt(Spawned leader, std::unique_ptr<Tree> tree);
  // The other way round: it runs on, and is nobody's concern here.
  std::pair<Spawned, std::unique_ptr<Tree>> release();

  pid_t pid() const { return leader_.pid; }  // also after its end
  bool is_running() const { return static_cast<bool>(leader_.pidfd); }
  Tree* tree() { return tree_.get(); }
  void signal(int number);
  // Kills the whole tree, again and again, until on_gone or, after `unkillable_after`, on_unkillable.
  void kill();

 private:
  void reap_leader();
  void check_tree();
  void stop_watching();

  EventLoop& loop_;
  Callbacks callbacks_;
  Duration unkillable_after_;
  Spawned leader_;
  std::unique_ptr<Tree> tree_;
  bool killing_ = false;
  Mono kill_deadline_;
  EventLoop::TimerId timer_ = 0;
};

}  // namespace bitctl
