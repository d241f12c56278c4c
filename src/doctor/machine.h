// How well this machine, and this user on it, can hold a training: processes, processor, memory, clock.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"
#include "doctor/finding.h"

namespace bitctl {

// The isolation that `train` would have, and what weighs training against its neighbours. Asks systemd where
// that is needed. From the main thread only: it starts a process.
std::vector<Finding> check_isolation();

// `checkpoint` in bytes, 0 where unknown; a snapshot takes twice as much. `limit` is that of the memory
// cgroup, 0 where there is none.
Finding memory_finding(uint64_t available, uint64_t limit, uint64_t checkpoint);
// A shared memory file that is allocated and sealed as an arena is, and room for two snapshots.
Finding check_memory_files();
Finding check_memory_room(uint64_t checkpoint);

// `asleep`: how long the machine has slept since it was booted.
Finding clock_finding(Wall now, Duration asleep);
Finding check_clock();

// What can look into a trainer that hangs. `ptrace_scope` is that of Yama, 0 where there is none.
Finding stacks_finding(bool py_spy, int ptrace_scope, bool root);
Finding check_stacks();

}  // namespace bitctl
