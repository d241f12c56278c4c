// What /proc tells about the processes of this machine, as far as a tree's end needs it.
#pragma once

#include <sys/types.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/strict_json.h"

namespace bitctl {

struct Ancestry {
  char state = 0;  // 'R', 'S', …
  pid_t parent = 0;
  pid_t group = 0;
  pid_t session = 0;

  // It holds nothing any more, and waits for its parent to take note.
  bool is_zombie() const { return state == 'Z' || state == 'X'; }
};

std::vector<pid_t> all_pids();
std::map<pid_t, Ancestry> read_ancestry(const std::vector<pid_t>& pids);

// The value of BITCTL_RUN_DIR in a process's environment; empty where it has none, or is not ours to read.
std::string marker_of(pid_t pid);

// Gone, or waiting for its parent to take note: it holds nothing any more.
bool is_zombie(pid_t pid);

// One that does not die. Only what is read without a lock of its memory: whoever waits for that is stuck too.
struct StuckProcess {
  pid_t pid = 0;
  std::string command;  // the kernel's name of it, at most 15 bytes
  char state = 0;
  std::string wchan;  // where in the kernel it waits; empty where that is not told
};

StuckProcess stuck_process(pid_t pid);
// "cannot be killed: 4711 (python, state D in folio_wait_bit)"
std::string describe_unkillable(const std::vector<StuckProcess>& processes);

// The same for people and as the row "unkillable": {"reason", "processes": [{"pid", "command", "state",
// "wchan"}]}.
struct UnkillableTree {
  std::string reason;
  Json fields;
};

UnkillableTree unkillable_tree(const std::vector<pid_t>& pids);

// Processes whose environment holds `BITCTL_RUN_DIR=<run_folder>`, zombies left out.
std::vector<pid_t> marked_processes(const std::string& run_folder);

// The run folders that any process's marker names.
std::set<std::string> marked_run_folders();

// Kills what carries the run's marker until a pass finds none, at most 5 s. For the next start after
// supervisor and writer were both killed; the caller holds the run's lock. Returns how many were killed.
int sweep_leftovers(const std::string& run_folder);

}  // namespace bitctl
