// The loops that all levels share, over V: a level's vectors of floats.
//
// A sum has kSumLanes partial sums, column c in partial sum c % kSumLanes, which are added pairwise, the
// upper half to the lower. No row and no token depends on what is computed beside it; and levels that fuse
// multiply and add get the same bits.
#pragma once

#include <math.h>
#include <string.h>

#include "kernels/level.h"

namespace bitctl {

inline constexpr size_t kSumLanes = 32;

struct F32 {
  static constexpr size_t kBytes = 4;
};
struct Bf16 {
  static constexpr size_t kBytes = 2;
};
struct F16 {
  static constexpr size_t kBytes = 2;
};
struct Int8 {
  static constexpr size_t kBytes = 1;
};

template <class V, class Weight, int R, int T>
struct Dots {
  static constexpr size_t kVectors = kSumLanes / V::kLanes;
  typename V::Floats sums[R][T][kVectors];

  // kSumLanes columns of R rows and T tokens, `row` bytes and `token` floats apart. Unrolled, or the sums
  // would lie in memory.
  __attribute__((always_inline)) void add(const unsigned char* w, size_t row, const float* x, size_t token) {
#pragma GCC unroll 16
    for (size_t v = 0; v < kVectors; ++v) {
      typename V::Floats weights[R];
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r)
        weights[r] = V::load(Weight(), w + r * row + v * V::kLanes * Weight::kBytes);
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t) {
        const typename V::Floats values = V::load(F32(), x + t * token + v * V::kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) sums[r][t][v] = V::multiply_add(weights[r], values, sums[r][t][v]);
      }
    }
  }
};

// to[t][r] = Σ w[r, c] · x[t, c]
template <class V, class Weight, int R, int T>
void dots(const unsigned char* w, const float* x, size_t columns, float (&to)[T][R]) {
  Dots<V, Weight, R, T> dots;
#pragma GCC unroll 16
  for (auto& row : dots.sums)
#pragma GCC unroll 16
    for (auto& token : row)
#pragma GCC unroll 16
      for (auto& sum : token) sum = V::zero();
  const size_t row_bytes = columns * Weight::kBytes;
  const size_t whole = columns / kSumLanes * kSumLanes;
  for (size_t c = 0; c < whole; c += kSumLanes) dots.add(w + c * Weight::kBytes, row_bytes, x + c, columns);
  if (const size_t rest = columns - whole; rest > 0) {
    alignas(64) unsigned char last_weights[R][kSumLanes * Weight::kBytes] = {};
    alignas(64) float last_values[T][kSumLanes] = {};
    for (int r = 0; r < R; ++r)
      memcpy(last_weights[r], w + r * row_bytes + whole * Weight::kBytes, rest * Weight::kBytes);
    for (int t = 0; t < T; ++t) memcpy(last_values[t], x + t * columns + whole, rest * sizeof(float));
    dots.add(last_weights[0], sizeof last_weights[0], last_values[0], kSumLanes);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) to[t][r] = V::sum(dots.sums[r][t]);
}

template <class V, class Weight, int R, int T>
void multiply_tile(const Matrix& w, size_t row, const float* x, float* y) {
  float sums[T][R];
  dots<V, Weight, R, T>(static_cast<const unsigned char*>(w.data) + row * w.columns * Weight::kBytes, x,
                        w.columns, sums);
  for (int t = 0; t < T; ++t)
    for (int r = 0; r < R; ++r)
      y[t * w.rows + row + r] = w.type == Matrix::Type::int8 ? sums[t][r] * w.scales[row + r] : sums[t][r];
}

// T tokens, or those fewer that are left.
template <class V, class Weight, int R, int T>
void multiply_rows(const Matrix& w, size_t begin, size_t end, size_t tokens, const float* x, float* y) {
  if constexpr (T > 1)
    if (tokens < T) return multiply_rows<V, Weight, R, T - 1>(w, begin, end, tokens, x, y);
  size_t row = begin;
  for (; row + R <= end; row += R) multiply_tile<V, Weight, R, T>(w, row, x, y);
  for (; row < end; ++row) multiply_tile<V, Weight, 1, T>(w, row, x, y);
}

template <class V, class Weight>
void multiply_floats(const Matrix& w, size_t begin, size_t end, const Activations& x, float* y) {
  for (size_t t = 0; t < x.tokens; t += V::kTileTokens) {
    const size_t tokens = x.tokens - t;
    // What is read once is read one row after the other: several streams from memory are slower than one.
    (x.tokens <= V::kTileTokens
         ? multiply_rows<V, Weight, 1, V::kTileTokens>
         : multiply_rows<V, Weight, V::kTileRows, V::kTileTokens>)(w, begin, end, tokens,
                                                                   x.floats + t * w.columns, y + t * w.rows);
  }
}

template <class V, int T>
void multiply_packed(const Matrix& w, size_t begin, size_t end, size_t first, const Activations& x,
                     float* y) {
  if constexpr (T > 1)
    if (x.tokens - first < T) return multiply_packed<V, T - 1>(w, begin, end, first, x, y);
  const size_t quarter = w.rows / 4;
  for (size_t row = begin; row < end; ++row) {
    int32_t sums[T][4];
    V::template packed_dots<T>(static_cast<const unsigned char*>(w.data) + row * w.columns, w.columns,
                               x.integers + first * x.integer_stride, x.integer_stride, sums);
    for (int t = 0; t < T; ++t)
      for (int k = 0; k < 4; ++k)  // a weight is its two bits less one
        y[(first + t) * w.rows + k * quarter + row] =
            static_cast<float>(sums[t][k] - x.integer_sums[first + t]) / x.scales[first + t] * w.scales[0];
  }
}

template <class V, class Weight>
void read_floats(const Matrix& w, size_t row, float* to) {
  const auto* from = static_cast<const unsigned char*>(w.data) + row * w.columns * Weight::kBytes;
  const size_t whole = w.columns / V::kLanes * V::kLanes;
  for (size_t c = 0; c < whole; c += V::kLanes)
    V::store(to + c, V::load(Weight(), from + c * Weight::kBytes));
  unsigned char last_weights[V::kLanes * Weight::kBytes] = {};
  float last[V::kLanes];
  memcpy(last_weights, from + whole * Weight::kBytes, (w.columns - whole) * Weight::kBytes);
  V::store(last, V::load(Weight(), last_weights));
  memcpy(to + whole, last, (w.columns - whole) * sizeof(float));
}

template <class V>
void read(const Matrix& w, size_t row, float* to) {
  switch (w.type) {
    case Matrix::Type::f32:
      return read_floats<V, F32>(w, row, to);
    case Matrix::Type::bf16:
      return read_floats<V, Bf16>(w, row, to);
    case Matrix::Type::f16:
      return read_floats<V, F16>(w, row, to);
    case Matrix::Type::int8:
      return read_floats<V, Int8>(w, row, to);
    case Matrix::Type::ternary:
      return;
  }
}

template <class V>
void multiply(const Matrix& w, size_t begin, size_t end, const Activations& x, float* y) {
  switch (w.type) {
    case Matrix::Type::f32:
      return multiply_floats<V, F32>(w, begin, end, x, y);
    case Matrix::Type::bf16:
      return multiply_floats<V, Bf16>(w, begin, end, x, y);
    case Matrix::Type::f16:
      return multiply_floats<V, F16>(w, begin, end, x, y);
    case Matrix::Type::int8:
      return multiply_floats<V, Int8>(w, begin, end, x, y);
    case Matrix::Type::ternary:
      for (size_t t = 0; t < x.tokens; t += V::kTilePacked)
        multiply_packed<V, V::kTilePacked>(w, begin, end, t, x, y);
  }
}

// |x| as bits has the order of |x|, infinity and NaN at its top, and integers are compared in vectors.
template <class V>
float quantize(const float* x, size_t columns, int8_t* integers, size_t stride, int32_t* sum) {
  constexpr uint32_t kInfinity = 0x7f800000;
  uint32_t bits = 0;
  for (size_t i = 0; i < columns; ++i) {
    uint32_t each;
    memcpy(&each, x + i, sizeof each);
    each &= 0x7fffffff;
    bits = each > bits ? each : bits;
  }
  memset(integers + columns, 0, stride - columns);
  *sum = 0;
  if (bits >= kInfinity) {
    memset(integers, 0, columns);
    return NAN;
  }
  float most;
  memcpy(&most, &bits, sizeof most);
  const float scale = 127.0F / (most < 1e-5F ? 1e-5F : most);
  int32_t total = 0;
  for (size_t i = 0; i < columns; ++i) {
    const auto integer = static_cast<int32_t>(__builtin_rintf(x[i] * scale));
    integers[i] = static_cast<int8_t>(integer);
    total += integer;
  }
  *sum = total;
  return scale;
}

}  // namespace bitctl
