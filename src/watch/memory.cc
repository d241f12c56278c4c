#include "watch/memory.h"

#include <charconv>

#include "base/read_file.h"

namespace bitctl {
namespace {

constexpr size_t kMostBytes = 64 * 1024;

// The number that follows `name` and blanks; 0 where there is none.
template <typename T>
T number_after(std::string_view text, std::string_view name) {
  T value{};
  const size_t at = text.find(name);
  if (at == text.npos) return value;
  text.remove_prefix(at + name.size());
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

MemoryState memory_state_from(std::string_view meminfo, std::string_view pressure) {
  return {number_after<uint64_t>(meminfo, "MemAvailable:") * 1024,
          number_after<double>(pressure, "some avg10=")};
}

MemoryState read_memory_state() {
  const auto meminfo = read_small_file("/proc/meminfo", kMostBytes, Links::follow);
  const auto pressure = read_small_file("/proc/pressure/memory", kMostBytes, Links::follow);
  return memory_state_from(meminfo ? *meminfo : "", pressure ? *pressure : "");
}

}  // namespace bitctl
