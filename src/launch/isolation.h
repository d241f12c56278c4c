// How the trees of processes that bitctl starts are held, so that each dies as a whole. From the best down:
//   cgroup  a fresh cgroup v2 leaf per tree and cgroup.kill. A leaf that was killed is never used again:
//           newborns in it die at once.
//   scope   the same, in a cgroup that the user's systemd has given us (launch/scope.h).
//   sweep   sub-reaper, and every process that carries the run's marker (BITCTL_RUN_DIR in its environment),
//           belongs to the leader's session, or descends from us; repeated until a pass finds none.
//   group   the leader's process group and nothing else, as other supervisors do it. It leaks: the control of
//           tests and benchmarks, never chosen by itself.
// The supervisor holds one; the writer rebuilds it from its description when the supervisor is dead.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/strict_json.h"
#include "launch/memory.h"

namespace bitctl {

// One process and everything it starts. Given up (its place freed) when it is destroyed; it should be empty
// by then.
class Tree {
 public:
  virtual ~Tree() = default;

  // For SpawnPlan::cgroup; -1 where there is nothing to be born in.
  virtual int place() const { return -1; }
  virtual void set_leader(pid_t) {}
  // A spare has become the trainer: what has no other owner is its from now on.
  virtual void become_attempt() {}

  // One pass of SIGKILL over the whole tree.
  virtual void kill() = 0;
  // Nothing of it is left but zombies.
  virtual bool is_empty() = 0;
  // Becomes readable (EPOLLPRI) when is_empty() may have changed; -1 where nothing tells.
  virtual int change_fd() const { return -1; }
  virtual std::vector<pid_t> pids() = 0;
  // Somebody has frozen it (cgroup.freeze, here or above): it lives, and cannot get on.
  virtual bool is_frozen() { return false; }
  // Since it was made, or became the attempt's.
  virtual MemoryUse memory() const { return {}; }
};

struct IsolationWish {
  std::string level;  // BITCTL_ISOLATION; empty: the best
  std::string scope;  // BITCTL_SCOPE: "entered", why there is none, or empty where none was needed

  static IsolationWish of_environment();
};

class Isolation {
 public:
  virtual ~Isolation() = default;

  // The best level this machine gives us, or the one that is wished. Error::invalid where a wished level is
  // not to be had.
  static Result<std::unique_ptr<Isolation>> choose(const std::string& run_folder, const IsolationWish& wish);
  // In another process, from description().
  static std::unique_ptr<Isolation> rebuild(const Json& description);

  virtual std::string level() const = 0;
  virtual Json description() const = 0;
  // Trees and helpers share the processor by cpu.weight.
  virtual bool weighs_cpu() const { return false; }

  // A spare's tree is its leader and what descends from it; an attempt's is that, and all that has no other
  // owner: orphans.
  enum class Role { attempt, spare };
  // Before a spawn: a place for a new tree; `name` is new to this run. The isolation outlives it.
  virtual Result<std::unique_ptr<Tree>> new_tree(const std::string& name, Role role) = 0;
  // All trees of the run as one, for whoever was not there when they were made.
  virtual std::unique_ptr<Tree> everything() = 0;
  // A helper of bitctl itself that is no part of any tree, in place of the one named before.
  virtual void exclude(pid_t helper) = 0;
};

}  // namespace bitctl
