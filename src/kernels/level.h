// What each level of instructions gives: pieces of a product, in one thread.
//
// A level is one file, compiled with its own target options. It must not bring an inline function of a
// library into the program: the linker keeps one copy for all, which would then be the one with this level's
// instructions. So levels include intrinsics and C headers, and what they share are templates over a type of
// their own unnamed namespace.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/attention_rows.h"
#include "kernels/matrix.h"

namespace bitctl {

// x, and for ternary weights also x as 8-bit integers: x ≈ integers / scale.
struct Activations {
  size_t tokens = 0;
  const float* floats = nullptr;          // [tokens, columns]
  const int8_t* integers = nullptr;       // [tokens, integer_stride], zero from `columns` on
  size_t integer_stride = 0;              // a multiple of kIntegerBlock
  const float* scales = nullptr;          // one a token
  const int32_t* integer_sums = nullptr;  // Σ integers, one a token
};

inline constexpr size_t kIntegerBlock = 64;

struct Level {
  // y[t, r] for all tokens and the units begin … end: rows, or of ternary weights rows of bytes (unit u is
  // the rows u + k · rows / 4).
  void (*multiply)(const Matrix& w, size_t begin, size_t end, const Activations& x, float* y);
  // One token, to `stride` integers; returns its scale, 127 / max |x|, and Σ integers. The scale is NaN, and
  // the integers are zero, where x is not finite.
  float (*quantize)(const float* x, size_t columns, int8_t* integers, size_t stride, int32_t* sum);
  // One row as floats, without its scale; not of ternary weights.
  void (*read)(const Matrix& w, size_t row, float* to);
  // As in attention.h, one part: `to` is Σ e^(score - largest) · value.
  void (*attend)(const AttentionRows& rows, const float* queries, size_t heads, float scale, float softcap,
                 AttentionState* states, float* to);
};

extern const Level kScalarLevel, kAvx2Level, kAvx512Level;

enum class Isa;
const Level& level_of(Isa isa);

}  // namespace bitctl
