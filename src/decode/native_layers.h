// What a transformer computes between its matrix products, on float32 activations. Nothing allocates.
#pragma once

#include <cstddef>
#include <span>

#include "decode/native_weights.h"
#include "model/model_config.h"

namespace bitctl {

// `to` may be `x`. GPT-2's norms, those with a bias, take the mean off first.
void normalize(std::span<const float> x, const NativeNorm& norm, float eps, float* to);

// gate = activation(gate) · up; without `up`, the activation alone.
void activate(Activation activation, std::span<float> gate, const float* up);

// RoPE of one head: dimension i turns with dimension i + cosines.size().
void rotate(float* head, std::span<const float> cosines, std::span<const float> sines);

// The keys and values of one head, from position `begin` to before `end`; rows of `head_dim`, bf16 or float.
struct AttentionRows {
  const void* keys = nullptr;  // of position 0
  const void* values = nullptr;
  bool is_bf16 = false;
  size_t begin = 0;
  size_t end = 0;
  size_t head_dim = 0;
};

// For each of `heads` queries that share these rows: the values, weighed by the softmax of query · key ·
// scale. `softcap` c makes a score c · tanh(score / c) first; 0: it stays. `queries` and `to` are [heads,
// head_dim].
void attend(const AttentionRows& rows, const float* queries, size_t heads, float scale, float softcap,
            float* to);

}  // namespace bitctl
