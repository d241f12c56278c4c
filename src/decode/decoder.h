// A model that turns token ids into logits. One at a time per model; its memory goes when the last owner lets
// go.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"

namespace bitctl {

struct DecoderInfo {
  std::string implementation;  // "torch"
  std::string device;
  std::string dtype;
  int64_t vocab_size = 0;
  int64_t max_context = 0;
};

class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual const DecoderInfo& info() const = 0;
  // Runs the ids at positions `position` …; what was cached from there on is forgotten. `logits` takes
  // vocab_size floats: those after the last id.
  virtual Status forward(std::span<const int32_t> ids, size_t position, std::span<float> logits) = 0;
};

}  // namespace bitctl
