// What an attempt took of the machine's memory, and what that is evidence of.
#pragma once

#include <cstdint>
#include <string>

namespace bitctl {

// Bytes and processes; 0 where it is not known, and where there is no limit.
struct MemoryUse {
  uint64_t peak = 0;
  uint64_t limit = 0;
  uint64_t oom_kills = 0;  // processes that the kernel killed for want of memory, perhaps somebody else's
};

// Only on evidence: any other SIGKILL may have come from anybody.
bool ran_out_of_memory(const MemoryUse& use, bool ended_by_sigkill);

// "3.9 GiB at its peak, of 4.0 GiB"; empty where nothing is known.
std::string describe(const MemoryUse& use);

}  // namespace bitctl
