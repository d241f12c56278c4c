// How much memory this machine has left.
#pragma once

#include <cstdint>
#include <string>

namespace bitctl {

struct MemoryState {
  uint64_t available_bytes = 0;  // MemAvailable
  double pressure = 0;  // percent of the last 10 s in which some process waited for memory; 0 where unknown
};

MemoryState read_memory_state();
// From the texts of /proc/meminfo and /proc/pressure/memory; either may be empty.
MemoryState memory_state_from(const std::string& meminfo, const std::string& pressure);

}  // namespace bitctl
