// What else may explain that a trainer is silent, before anybody acts on it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace bitctl {

struct Surroundings {
  std::vector<pid_t> stopped;  // by a signal (state T)
  bool frozen = false;         // by a cgroup: somebody's wish
  double cpu_pressure = 0;     // percent of the last 10 s in which somebody waited for a CPU
  uint64_t io_bytes = 0;       // read from and written to disks so far, by those that live
};

// Reads /proc only, which tells of the old freezer but not of cgroup.freeze. `pids`: the tree.
Surroundings look_around(const std::vector<pid_t>& pids);

enum class StallStep {
  excuse,  // it could not have got on
  wake,    // SIGCONT, and one more chance
  extend,  // too little CPU for everybody, or it reads or writes: one more chance
  act,
};

// Pure. `woken`, `extended`: that chance has been given in this attempt already. `io_before`: io_bytes when
// it was suspected.
StallStep next_step(const Surroundings& around, uint64_t io_before, bool woken, bool extended);

// "python 4711 R -; pt_data_worker 4712 S futex_wait_queue": each thread's name, id, state and where in the
// kernel it waits, of at most 64 threads.
std::string describe_threads(pid_t pid);

}  // namespace bitctl
