// Whether a model's weights fit into the memory that this process may take.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace bitctl {

struct MemoryRoom {
  uint64_t available = 0;         // the machine's MemAvailable; 0: not known
  std::optional<uint64_t> limit;  // what the cgroup still lets us take
};

MemoryRoom memory_room();

uint64_t bytes_of(const std::vector<std::string>& files);

// Empty where the weights fit. Mapped weights that do not are a warning: what is needed is read again from
// the file. Read into memory they would end this process or another, so that is Error::invalid.
Result<std::string> check_memory(uint64_t weight_bytes, const MemoryRoom& room, bool mapped);

}  // namespace bitctl
