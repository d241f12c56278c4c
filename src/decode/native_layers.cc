#include "decode/native_layers.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "decode/lanes.h"
#include "kernels/isa.h"

namespace bitctl {
namespace {

using lanes::Floats;
using lanes::kLanes;

constexpr size_t kBlock = 64;       // positions whose scores are known before the values are read
constexpr size_t kHeadsATime = 32;  // with their running sums on the stack

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

template <typename Element>
float dot(const float* x, const Element* y, size_t count) {
  Floats sums{};
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) sums += lanes::load(x + i) * lanes::load(y + i);
  float sum = lanes::sum(sums);
  for (; i < count; ++i) sum += x[i] * lanes::value(y[i]);
  return sum;
}

// to = to · factor + Σ weights[j] · rows[j, …]
template <typename Element>
void add_weighed(const float* weights, const Element* rows, size_t count, size_t head_dim, float factor,
                 float* to) {
  size_t d = 0;
  for (; d + kLanes <= head_dim; d += kLanes) {
    Floats sums = lanes::load(to + d) * factor;
    for (size_t j = 0; j < count; ++j) sums += weights[j] * lanes::load(rows + j * head_dim + d);
    lanes::store(sums, to + d);
  }
  for (; d < head_dim; ++d) {
    float sum = to[d] * factor;
    for (size_t j = 0; j < count; ++j) sum += weights[j] * lanes::value(rows[j * head_dim + d]);
    to[d] = sum;
  }
}

// The softmax over what was seen so far: everything is kept relative to the largest score.
struct Running {
  float largest = -std::numeric_limits<float>::infinity();
  float total = 0;
};

// Scores into weights; the factor by which all earlier ones shrink comes back. There is room for whole
// vectors.
float weigh(float* scores, size_t count, Running& running) {
  float largest = running.largest;
  for (size_t j = 0; j < count; ++j) largest = std::max(largest, scores[j]);
  const float shrink = running.total > 0 ? std::exp(running.largest - largest) : 0;
  const size_t whole = (count + kLanes - 1) / kLanes * kLanes;
  std::fill(scores + count, scores + whole, -std::numeric_limits<float>::infinity());
  Floats total{};
  for (size_t j = 0; j < whole; j += kLanes) {
    const Floats weights = lanes::exp(lanes::load(scores + j) - largest);
    total += weights;
    lanes::store(weights, scores + j);
  }
  running = {largest, running.total * shrink + lanes::sum(total)};
  return shrink;
}

template <typename Element>
void attend_to(const AttentionRows& rows, const float* queries, size_t heads, float scale, float softcap,
               float* to) {
  const auto* keys = static_cast<const Element*>(rows.keys);
  const auto* values = static_cast<const Element*>(rows.values);
  const size_t head_dim = rows.head_dim;
  Running running[kHeadsATime];
  std::fill_n(to, heads * head_dim, 0.0F);
  for (size_t begin = rows.begin; begin < rows.end; begin += kBlock) {
    const size_t count = std::min(kBlock, rows.end - begin);
    for (size_t head = 0; head < heads; ++head) {
      alignas(64) float scores[kBlock];
      for (size_t j = 0; j < count; ++j) {
        scores[j] = dot(queries + head * head_dim, keys + (begin + j) * head_dim, head_dim) * scale;
        if (softcap != 0) scores[j] = softcap * std::tanh(scores[j] / softcap);
      }
      const float shrink = weigh(scores, count, running[head]);
      add_weighed(scores, values + begin * head_dim, count, head_dim, shrink, to + head * head_dim);
    }
  }
  for (size_t head = 0; head < heads; ++head)
    for (size_t d = 0; d < head_dim; ++d) to[head * head_dim + d] /= running[head].total;
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

void attend_by_lanes(const AttentionRows& rows, const float* queries, size_t heads, float scale,
                     float softcap, float* to) {
  for (size_t head = 0; head < heads; head += kHeadsATime) {
    const float* some = queries + head * rows.head_dim;
    const size_t count = std::min(kHeadsATime, heads - head);
    if (rows.is_bf16)
      attend_to<uint16_t>(rows, some, count, scale, softcap, to + head * rows.head_dim);
    else
      attend_to<float>(rows, some, count, scale, softcap, to + head * rows.head_dim);
  }
}

// The same code for each level of instructions: everything it calls is drawn into these.
struct Level {
  decltype(&normalize_by_lanes) normalize;
  decltype(&activate_by_lanes) activate;
  decltype(&attend_by_lanes) attend;
};

#define BITCTL_LEVEL(name, target_options)                                                                  \
  [[gnu::flatten, gnu::target(target_options)]] void normalize_##name(                                      \
      std::span<const float> x, const NativeNorm& norm, float eps, float* to) {                             \
    normalize_by_lanes(x, norm, eps, to);                                                                   \
  }                                                                                                         \
  [[gnu::flatten, gnu::target(target_options)]] void activate_##name(                                       \
      Activation activation, std::span<float> gate, const float* up) {                                      \
    activate_by_lanes(activation, gate, up);                                                                \
  }                                                                                                         \
  [[gnu::flatten, gnu::target(target_options)]] void attend_##name(const AttentionRows& rows,               \
                                                                   const float* queries, size_t heads,      \
                                                                   float scale, float softcap, float* to) { \
    attend_by_lanes(rows, queries, heads, scale, softcap, to);                                              \
  }
BITCTL_LEVEL(avx2, "avx2")
BITCTL_LEVEL(avx512, "avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#undef BITCTL_LEVEL

Level level_of(Isa isa) {
  if (isa == Isa::avx512) return {normalize_avx512, activate_avx512, attend_avx512};
  if (isa == Isa::avx2) return {normalize_avx2, activate_avx2, attend_avx2};
  return {normalize_by_lanes, activate_by_lanes, attend_by_lanes};
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

void attend(const AttentionRows& rows, const float* queries, size_t heads, float scale, float softcap,
            float* to) {
  level().attend(rows, queries, heads, scale, softcap, to);
}

}  // namespace bitctl
