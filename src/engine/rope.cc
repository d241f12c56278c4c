#include "engine/rope.h"

#include <ATen/ATen.h>

namespace bitctl::engine {

Rope::Rope(const RopeConfig& config, int64_t head_dim)
    : frequencies_(at::tensor(rope_frequencies(config, head_dim), at::kFloat)) {}

Rotation Rope::rotation(int64_t position, int64_t count, at::ScalarType dtype) const {
  const at::Tensor angles = at::arange(position, position + count, at::kFloat).unsqueeze(1) * frequencies_;
  const at::Tensor both_halves = at::cat({angles, angles}, -1);
  return {both_halves.cos().to(dtype), both_halves.sin().to(dtype)};
}

at::Tensor rotate(const at::Tensor& x, const Rotation& rotation) {
  const auto halves = x.chunk(2, -1);
  return x * rotation.cos + at::cat({-halves[1], halves[0]}, -1) * rotation.sin;
}

}  // namespace bitctl::engine
