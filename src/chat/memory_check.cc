#include "chat/memory_check.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/text.h"
#include "launch/memory.h"
#include "watch/memory.h"

namespace bitctl {

MemoryRoom memory_room() { return {read_memory_state().available_bytes, MemoryEvidence().room()}; }

uint64_t bytes_of(const std::vector<std::string>& files) {
  uint64_t bytes = 0;
  for (const std::string& file : files) {
    std::error_code error;
    const uint64_t size = std::filesystem::file_size(file, error);
    if (!error) bytes += size;
  }
  return bytes;
}

Result<std::string> check_memory(uint64_t weight_bytes, const MemoryRoom& room, bool mapped) {
  const bool limited = room.limit && (room.available == 0 || *room.limit < room.available);
  const uint64_t available = limited ? *room.limit : room.available;
  if ((!limited && available == 0) || weight_bytes <= available) return std::string();
  const std::string need =
      fmt::format("the weights take {} and {} of memory are {}", format_bytes(weight_bytes),
                  format_bytes(available), limited ? "left by the cgroup's limit" : "available");
  if (!mapped)
    return fail(ErrorKind::invalid, need + "; without --no-mmap they stay in the file and need not fit");
  return fmt::format("⚠ {}: what does not fit is read again for every token", need);
}

}  // namespace bitctl
