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
  std::string implementation;  // "native", "torch", "transformers"
  std::string device;          // "cpu", "cuda:0"
  std::string dtype;           // in which it computes: "float32", "bfloat16", "float16"
  int64_t vocab_size = 0;
  int64_t max_context = 0;  // positions
  std::string remark = {};  // for people: why it is this one, where nobody asked for it
};

class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual const DecoderInfo& info() const = 0;
  // Runs the ids at positions `position` …; what was cached from there on is forgotten. `logits` takes
  // vocab_size floats: those after the last id. Blocks until they are there; a prompt that may have to be
  // stopped is handed over in pieces. Error::invalid for ids, positions or a context that cannot be.
  virtual Status forward(std::span<const int32_t> ids, size_t position, std::span<float> logits) = 0;
  // Its process has died: nothing helps but to open the model again.
  virtual bool is_lost() const { return false; }
};

}  // namespace bitctl
