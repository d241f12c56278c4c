// Rotary position embedding as transformers computes it, operation by operation: the same float32 roundings.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/llama_config.h"

namespace bitctl::engine {

struct Rotation {
  at::Tensor cos, sin;  // [count, head_dim]
};

class Rope {
 public:
  Rope(const RopeConfig& config, int64_t head_dim);

  // For positions position … position + count - 1, in the dtype of the model.
  Rotation rotation(int64_t position, int64_t count, at::ScalarType dtype) const;

 private:
  at::Tensor frequencies_;  // [head_dim / 2]
};

// x: [heads, count, head_dim].
at::Tensor rotate(const at::Tensor& x, const Rotation& rotation);

}  // namespace bitctl::engine
