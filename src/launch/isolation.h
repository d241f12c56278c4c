// How the tree of one attempt is held, so that it dies together. Two levels:
//   cgroup  a fresh cgroup v2 leaf per attempt and cgroup.kill. A leaf that was killed is never used again:
//   newborns
//           in it die at once.
//   sweep   sub-reaper, and every process that carries the run's marker (BITCTL_RUN_DIR in its environment),
//   belongs to
//           the leader's session, or descends from us; repeated until a pass finds none.
// The supervisor holds one; the writer rebuilds it from its description when the supervisor is dead.
#pragma once

#include <sys/types.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "base/strict_json.h"

namespace bitctl {

class Isolation {
 public:
  virtual ~Isolation() = default;

  // The best level this machine gives us; `forced` ("cgroup", "sweep", or empty) is the environment's
  // BITCTL_ISOLATION. Error::invalid where a forced level is not to be had.
  static Result<std::unique_ptr<Isolation>> choose(const std::string& run_folder, const std::string& forced);
  // In another process, from description().
  static std::unique_ptr<Isolation> rebuild(const Json& description);

  virtual std::string level() const = 0;
  virtual Json description() const = 0;

  // Before a spawn: a place for the new tree. A descriptor for SpawnPlan::cgroup, or -1.
  virtual Result<int> new_attempt(int attempt) = 0;
  virtual void set_leader(pid_t leader) = 0;
  // A helper of bitctl itself that is no part of the tree.
  virtual void exclude(pid_t helper) = 0;

  // One pass of SIGKILL over the whole tree.
  virtual void kill_tree() = 0;
  // Nothing of the tree is left but zombies.
  virtual bool is_empty() = 0;
  // Becomes readable (EPOLLPRI) when is_empty() may have changed; -1 where nothing tells.
  virtual int change_fd() const { return -1; }
  virtual std::vector<pid_t> pids() = 0;
  // After the tree is gone.
  virtual void forget_attempt() = 0;
};

// Processes whose environment holds `BITCTL_RUN_DIR=<run_folder>`, zombies left out.
std::vector<pid_t> marked_processes(const std::string& run_folder);

// The run folders that any process's marker names.
std::set<std::string> marked_run_folders();

// Kills what carries the run's marker until a pass finds none, at most 5 s. For the next start after
// supervisor and writer were both killed; the caller holds the run's lock. Returns how many were killed.
int sweep_leftovers(const std::string& run_folder);

}  // namespace bitctl
