#include "decode/native_layers.h"

#include <algorithm>
#include <cmath>

#include "decode/lanes.h"
#include "kernels/isa.h"

namespace bitctl {
namespace {

using lanes::Floats;
using lanes::kLanes;

// Σ (x - mean)² / n, the mean being 0 for the root-mean-square norm.
float variance(std::span<const float> x, float mean) {
  Floats sums{};
  size_t i = 0;
  for (; i + kLanes <= x.size(); i += kLanes) {
    const Floats apart = lanes::load(&x[i]) - mean;
    sums += apart * apart;
  }
  float sum = lanes::sum(sums);
  for (; i < x.size(); ++i) sum += (x[i] - mean) * (x[i] - mean);
  return sum / static_cast<float>(x.size());
}

// x · sigmoid(k · x) for both: tanh's form of GELU is a sigmoid of a cubic.
template <typename Steepness>
void sigmoid_gate(std::span<float> gate, const float* up, Steepness steepness) {
  const auto gated = [&](Floats x, Floats by) { return x / (1 + lanes::exp(-steepness(x))) * by; };
  const Floats one = Floats{} + 1;
  size_t i = 0;
  for (; i + kLanes <= gate.size(); i += kLanes)
    lanes::store(gated(lanes::load(&gate[i]), up != nullptr ? lanes::load(up + i) : one), &gate[i]);
  for (; i < gate.size(); ++i) gate[i] = gated(Floats{} + gate[i], up != nullptr ? Floats{} + up[i] : one)[0];
}

void normalize_by_lanes(std::span<const float> x, const NativeNorm& norm, float eps, float* to) {
  const bool centered = !norm.bias.empty();
  float mean = 0;
  if (centered) {
    for (const float value : x) mean += value;
    mean /= static_cast<float>(x.size());
  }
  const float scale = 1 / std::sqrt(variance(x, mean) + eps);
  for (size_t i = 0; i < x.size(); ++i) to[i] = (x[i] - mean) * scale * norm.weight[i];
  if (centered)
    for (size_t i = 0; i < x.size(); ++i) to[i] += norm.bias[i];
}

void activate_by_lanes(Activation activation, std::span<float> gate, const float* up) {
  switch (activation) {
    case Activation::silu:
      return sigmoid_gate(gate, up, [](Floats x) { return x; });
    case Activation::gelu_tanh: {
      const float slope = 2 * std::sqrt(2 / static_cast<float>(M_PI));
      return sigmoid_gate(gate, up, [=](Floats x) { return slope * (x + 0.044715F * x * x * x); });
    }
    case Activation::relu2:
      for (size_t i = 0; i < gate.size(); ++i) {
        const float positive = std::max(gate[i], 0.0F);
        gate[i] = positive * positive * (up != nullptr ? up[i] : 1);
      }
  }
}

// The same code for each level of instructions: everything it calls is drawn into these.
struct Level {
  decltype(&normalize_by_lanes) normalize;
  decltype(&activate_by_lanes) activate;
};

#define BITCTL_LEVEL(name, target_options)                                      \
  [[gnu::flatten, gnu::target(target_options)]] void normalize_##name(          \
      std::span<const float> x, const NativeNorm& norm, float eps, float* to) { \
    normalize_by_lanes(x, norm, eps, to);                                       \
  }                                                                             \
  [[gnu::flatten, gnu::target(target_options)]] void activate_##name(           \
      Activation activation, std::span<float> gate, const float* up) {          \
    activate_by_lanes(activation, gate, up);                                    \
  }
BITCTL_LEVEL(avx2, "avx2")
BITCTL_LEVEL(avx512, "avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#undef BITCTL_LEVEL

Level level_of(Isa isa) {
  if (isa == Isa::avx512) return {normalize_avx512, activate_avx512};
  if (isa == Isa::avx2) return {normalize_avx2, activate_avx2};
  return {normalize_by_lanes, activate_by_lanes};
}

const Level& level() {
  static const Level chosen = level_of(default_isa());
  return chosen;
}

}  // namespace

void normalize(std::span<const float> x, const NativeNorm& norm, float eps, float* to) {
  level().normalize(x, norm, eps, to);
}

void activate(Activation activation, std::span<float> gate, const float* up) {
  level().activate(activation, gate, up);
}

void rotate(float* head, std::span<const float> cosines, std::span<const float> sines) {
  const size_t pairs = cosines.size();
  for (size_t i = 0; i < pairs; ++i) {
    const float first = head[i], second = head[i + pairs];
    head[i] = first * cosines[i] - second * sines[i];
    head[i + pairs] = second * cosines[i] + first * sines[i];
  }
}

}  // namespace bitctl
