#include "engine/rope.h"

#include <ATen/ATen.h>

#include <numbers>

namespace bitctl::engine {
namespace {

// Long waves are slowed down by `factor`, short ones kept, those between are interpolated.
at::Tensor llama3_frequencies(const at::Tensor& frequencies, const RopeConfig& config) {
  const double context = config.original_max_position_embeddings;
  const at::Tensor wavelength = 2 * std::numbers::pi / frequencies;
  const at::Tensor is_long = wavelength > context / config.low_freq_factor;
  const at::Tensor is_short = wavelength < context / config.high_freq_factor;
  const at::Tensor scaled = at::where(is_long, frequencies / config.factor, frequencies);
  const at::Tensor smooth =
      (context / wavelength - config.low_freq_factor) / (config.high_freq_factor - config.low_freq_factor);
  const at::Tensor between = (1 - smooth) * scaled / config.factor + smooth * scaled;
  return at::where(is_long.logical_or(is_short), scaled, between);
}

}  // namespace

Rope::Rope(const RopeConfig& config, int64_t head_dim) {
  const at::Tensor exponents = at::arange(0, head_dim, 2, at::kFloat) / head_dim;
  frequencies_ = 1.0 / at::pow(config.theta, exponents);
  if (config.type == RopeConfig::Type::linear) frequencies_ /= config.factor;
  if (config.type == RopeConfig::Type::llama3) frequencies_ = llama3_frequencies(frequencies_, config);
}

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
