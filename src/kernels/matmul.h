// Products of a few activations with many weights.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/isa.h"
#include "kernels/matrix.h"
#include "kernels/pool.h"

namespace bitctl {

// y[t, r] = Σ w[r, c] · x[t, c], c < w.columns; y is row-major [tokens, w.rows].
struct Product {
  Matrix w;
  float* y = nullptr;
};

// All products of one input: x is row-major [tokens, columns], the same columns in each; w.data need not be
// aligned, and an x that is not, to 64 bytes, is copied. Sums of floats are float32 with x as it is; their
// order depends on nothing but the number of columns, so a result is the same for any number of threads,
// tokens and products beside it, and with avx2 and avx512. Ternary: x becomes 8-bit integers with one scale a
// token, as BitNet has it, and the sums are exact; a token that is not finite gives NaN. Denormal floats
// count as zero. Allocates nothing once it has seen its largest input.
void matmul(Pool& pool, std::span<const Product> products, const float* x, size_t tokens,
            Isa isa = default_isa());

// One row of weights as floats, scaled: an embedding. Not for ternary.
void read_row(const Matrix& w, size_t row, float* to);

}  // namespace bitctl
