#include "decode/native_layers.h"

#include <algorithm>
#include <cmath>

#include "decode/lanes.h"

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

}  // namespace

void normalize(std::span<const float> x, const NativeNorm& norm, float eps, float* to) {
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

void activate(Activation activation, std::span<float> gate, const float* up) {
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

void rotate(float* head, std::span<const float> cosines, std::span<const float> sines) {
  const size_t pairs = cosines.size();
  for (size_t i = 0; i < pairs; ++i) {
    const float first = head[i], second = head[i + pairs];
    head[i] = first * cosines[i] - second * sines[i];
    head[i + pairs] = second * cosines[i] + first * sines[i];
  }
}

}  // namespace bitctl
