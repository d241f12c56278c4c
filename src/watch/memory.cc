#include "watch/memory.h"

#include <cstdlib>

#include "base/read_file.h"
#include "watch/pressure.h"

namespace bitctl {

MemoryState memory_state_from(const std::string& meminfo, const std::string& pressure) {
  constexpr std::string_view kName = "MemAvailable:";
  const size_t at = meminfo.find(kName);
  const uint64_t kilobytes =
      at == std::string::npos ? 0 : std::strtoull(meminfo.c_str() + at + kName.size(), nullptr, 10);
  return {kilobytes * 1024, pressure_from(pressure)};
}

MemoryState read_memory_state() {
  return memory_state_from(read_kernel_file("/proc/meminfo"), read_kernel_file("/proc/pressure/memory"));
}

}  // namespace bitctl
