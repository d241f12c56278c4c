// What `bitctl chat` was asked for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "chat/loader.h"

namespace bitctl {

struct ChatOptions {
  ModelChoice model;
  std::optional<std::string> prompt;  // -p: one answer, then the end
  std::string system;
  // Where not given: what the model's generation_config.json says, else greedy; with top_p or seed,
  // temperature 1.
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int64_t> max_new_tokens;
  std::optional<uint64_t> seed;  // not given: another one each time
  bool no_wait = false;          // a prompt that would have to wait fails instead
  bool offline = false;
  bool verbose = false;
  OpenOptions open;
};

}  // namespace bitctl
