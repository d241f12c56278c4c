// Reading PULSE files that anybody may have written. Three answers: missing, damaged, good. This library
// holds no write call; a test looks at its symbols.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "pulse/status.h"

namespace bitctl {

struct PulseMissing {};

struct PulseDamaged {
  std::string path;
  size_t byte = 0;     // offset in the file at which the trouble was met; 0 where the file could not be read
  std::string reason;  // safe to print
  bool readable = true;  // false: it could not be read at all (a folder, a FIFO, too large, no permission)
};

struct PulseGood {
  PulseStatus status;
  std::vector<std::string> unknown_keys;  // present, ignored by a reader; `bitctl pulse check` refuses them
};

using PulseRead = std::variant<PulseMissing, PulseDamaged, PulseGood>;

constexpr size_t kMaxPulseBytes = 64 * 1024;

// Never blocks, follows no link, takes regular files of at most 64 KiB.
PulseRead read_pulse(const std::string& path);
// The same rules on bytes; `path` only goes into the answer.
PulseRead parse_pulse(std::string_view bytes, const std::string& path);

// "<path>: byte 31: "loss" is not a number: null", safe to print.
std::string damage_text(const PulseDamaged& damage);

}  // namespace bitctl
