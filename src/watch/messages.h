// What a trainer says over its socket, taken apart and checked once. Every message is a JSON object with a
// "type"; unknown types are ignored, unknown fields too; a field of the wrong type makes the message
// Error::invalid.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/strict_json.h"

namespace bitctl {

constexpr int kTrainerProtocol = 1;

struct Hello {
  int protocol = 0;
  std::string role;  // "trainer", "control"
  int attempt = 0;
  std::string token;
  int rank = 0;
  int world_size = 1;
  int restart = 0;  // how often the attempt's own launcher has started its workers anew
  int64_t pid = 0;
  std::string python;
  std::string torch;
  int threads = 0;
};

struct Progress {
  uint64_t step = 0;  // completed optimizer steps
  std::optional<uint64_t> total_steps;
  std::optional<double> epoch;
  std::optional<double> total_epochs;
  std::optional<double> loss;  // finite
  std::string non_finite;      // "NaN", "inf" or "-inf" where the loss is no number
  std::optional<double> lr;
  std::string message;           // the trainer's own text, from a PULSE of its own; empty otherwise
  std::optional<int64_t> stamp;  // and its time, Unix seconds
};

Result<Json> message_from(const std::string& bytes);  // an object with a string "type"
Result<Hello> hello_from(const Json& message);
Result<Progress> progress_from(const Json& message);

}  // namespace bitctl
