// Attention, shared by all levels as dots.h is: a softmax that is kept relative to the largest score so far.
#pragma once

#include <math.h>

#include "kernels/dots.h"

namespace bitctl {

inline constexpr size_t kAttendBlock = 64;  // positions whose scores are known before the values are read

// e^x within 2 units of the last place, in vectors of the compiler's; 0 below -87, largest at 88.
template <class V>
typename V::Floats exp_of(typename V::Floats x) {
  using Floats = typename V::Floats;
  constexpr float kTerms[] = {1.3981999507e-3F, 8.3334519073e-3F, 4.1665795894e-2F, 1.6666665459e-1F, 0.5F};
  x = x < -87 ? Floats{} - 87 : x > 88 ? Floats{} + 88 : x;
  // e^x = 2^whole · e^rest with |rest| <= ln 2 / 2; adding 1.5 · 2^23 rounds to a whole number.
  const float shifter = 12'582'912;
  const Floats whole = (x * 1.44269504F + shifter) - shifter;
  const Floats rest = (x - whole * 0.693359375F) - whole * -2.12194440e-4F;
  Floats power = Floats{} + 1.9875691500e-4F;
  for (const float term : kTerms) power = power * rest + term;
  power = power * rest * rest + rest + 1;
  return power * (Floats)((__builtin_convertvector(whole, typename V::Integers) + 127) << 23);
}

// Scores into weights; the factor by which all earlier ones shrink comes back. In kLanes parts, so that it
// becomes vectors, and the same sum, in every level.
template <class V>
float weigh(float (&scores)[kAttendBlock], size_t count, AttentionState& state) {
  constexpr size_t kLanes = 16;
  for (size_t j = count; j < kAttendBlock; ++j) scores[j] = -INFINITY;
  float parts[kLanes];
  for (size_t i = 0; i < kLanes; ++i) parts[i] = state.largest;
  for (size_t j = 0; j < kAttendBlock; j += kLanes)
    for (size_t i = 0; i < kLanes; ++i) parts[i] = scores[j + i] > parts[i] ? scores[j + i] : parts[i];
  float largest = state.largest;
  for (const float part : parts) largest = part > largest ? part : largest;
  for (size_t j = 0; j < count; j += V::kLanes)
    V::store(scores + j, V::exp(V::load(F32(), scores + j) - largest));
  for (size_t j = count; j < kAttendBlock; ++j) scores[j] = 0;
  for (float& part : parts) part = 0;
  for (size_t j = 0; j < kAttendBlock; j += kLanes)
    for (size_t i = 0; i < kLanes; ++i) parts[i] += scores[j + i];
  float total = 0;
  for (const float part : parts) total += part;
  const float shrink = state.total > 0 ? expf(state.largest - largest) : 0;
  state = {largest, state.total * shrink + total};
  return shrink;
}

// scores[t][j] = query t · key j · scale, T queries and `count` keys from position `begin` on.
template <class V, class Element, int T>
void score(const AttentionRows& rows, size_t begin, size_t count, const float* queries, float scale,
           float softcap, float (*scores)[kAttendBlock]) {
  const size_t head_dim = rows.head_dim;
  const auto* keys = static_cast<const unsigned char*>(rows.keys) + begin * head_dim * Element::kBytes;
  constexpr int R = V::kTileRows;
  size_t j = 0;
  const auto put = [&](const auto& sums, size_t there) {
    for (int t = 0; t < T; ++t)
      for (size_t r = 0; r < there; ++r) {
        float score = sums[t][r] * scale;
        if (rows.key_scales != nullptr) score *= rows.key_scales[begin + j + r];
        scores[t][j + r] = softcap != 0 ? softcap * tanhf(score / softcap) : score;
      }
    j += there;
  };
  while (j + R <= count) {
    float sums[T][R];
    dots<V, Element, R, T>(keys + j * head_dim * Element::kBytes, queries, head_dim, sums);
    put(sums, R);
  }
  while (j < count) {
    float sums[T][1];
    dots<V, Element, 1, T>(keys + j * head_dim * Element::kBytes, queries, head_dim, sums);
    put(sums, 1);
  }
}

// to[t, d] = to[t, d] · shrink[t] + Σ weights[t][j] · values[j, d] for C vectors from column d on; of the
// last one only `there` columns where that is not all.
template <class V, class Element, int T, int C>
void add_weighed(const float (*weights)[kAttendBlock], const unsigned char* values, size_t count,
                 const float* shrink, size_t head_dim, size_t there, float* to) {
  using Floats = typename V::Floats;
  const auto read = [&](auto element, const void* from) {
    if (C > 1 || there == V::kLanes) return V::load(element, from);
    unsigned char some[V::kLanes * decltype(element)::kBytes] = {};
    memcpy(some, from, there * decltype(element)::kBytes);
    return V::load(element, some);
  };
  Floats sums[T][C];
#pragma GCC unroll 16
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) sums[t][c] = read(F32(), to + t * head_dim + c * V::kLanes) * shrink[t];
  for (size_t j = 0; j < count; ++j) {
    const unsigned char* row = values + j * head_dim * Element::kBytes;
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) {
      const Floats value = read(Element(), row + c * V::kLanes * Element::kBytes);
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t) sums[t][c] = V::multiply_add(V::all(weights[t][j]), value, sums[t][c]);
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) {
      float out[V::kLanes];
      V::store(out, sums[t][c]);
      memcpy(to + t * head_dim + c * V::kLanes, out, (C > 1 ? V::kLanes : there) * sizeof(float));
    }
}

// T heads, or those fewer that are left, over one block.
template <class V, class Element, int T>
void attend_heads(const AttentionRows& rows, size_t begin, size_t count, const float* queries, size_t heads,
                  float scale, float softcap, AttentionState* states, float* to) {
  if constexpr (T > 1)
    if (heads < T)
      return attend_heads<V, Element, T - 1>(rows, begin, count, queries, heads, scale, softcap, states, to);
  const size_t head_dim = rows.head_dim;
  const auto* values = static_cast<const unsigned char*>(rows.values) + begin * head_dim * Element::kBytes;
  alignas(64) float weights[T][kAttendBlock];
  float shrink[T];
  score<V, Element, T>(rows, begin, count, queries, scale, softcap, weights);
  for (int t = 0; t < T; ++t) {
    shrink[t] = weigh<V>(weights[t], count, states[t]);
    for (size_t j = 0; rows.value_scales != nullptr && j < count; ++j)
      weights[t][j] *= rows.value_scales[begin + j];
  }
  constexpr size_t kChunk = 4;
  size_t d = 0;
  for (; d + kChunk * V::kLanes <= head_dim; d += kChunk * V::kLanes)
    add_weighed<V, Element, T, kChunk>(weights, values + d * Element::kBytes, count, shrink, head_dim,
                                       V::kLanes, to + d);
  for (; d < head_dim; d += V::kLanes)
    add_weighed<V, Element, T, 1>(weights, values + d * Element::kBytes, count, shrink, head_dim,
                                  head_dim - d < V::kLanes ? head_dim - d : V::kLanes, to + d);
}

template <class V, class Element>
void attend_some(const AttentionRows& rows, const float* queries, size_t heads, float scale, float softcap,
                 AttentionState* states, float* to) {
  const size_t head_dim = rows.head_dim;
  for (size_t head = 0; head < heads; ++head) states[head] = {};
  memset(to, 0, heads * head_dim * sizeof(float));
  for (size_t begin = rows.begin; begin < rows.end; begin += kAttendBlock) {
    const size_t count = rows.end - begin < kAttendBlock ? rows.end - begin : kAttendBlock;
    for (size_t head = 0; head < heads; head += V::kTileTokens)
      attend_heads<V, Element, V::kTileTokens>(rows, begin, count, queries + head * head_dim, heads - head,
                                               scale, softcap, states + head, to + head * head_dim);
  }
}

template <class V>
void attend(const AttentionRows& rows, const float* queries, size_t heads, float scale, float softcap,
            AttentionState* states, float* to) {
  switch (rows.type) {
    case KvType::f32:
      return attend_some<V, F32>(rows, queries, heads, scale, softcap, states, to);
    case KvType::bf16:
      return attend_some<V, Bf16>(rows, queries, heads, scale, softcap, states, to);
    case KvType::int8:
      return attend_some<V, Int8>(rows, queries, heads, scale, softcap, states, to);
  }
}

}  // namespace bitctl
