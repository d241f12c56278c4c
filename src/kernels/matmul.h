// Products of a few activations with many weights.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/matrix.h"
#include "kernels/pool.h"

namespace bitctl {

// y[t, r] = Σ w[r, c] · x[t, c], c < w.columns; y is row-major [tokens, w.rows].
struct Product {
  Matrix w;
  float* y = nullptr;
};

// All products of one input: x is row-major [tokens, columns], the same columns in each. The sums are float32
// (ternary: exact integers of x as 8-bit integers with one scale a token, as BitNet has it). A result does
// not depend on the number of threads.
void matmul(Pool& pool, std::span<const Product> products, const float* x, size_t tokens);

// One row of weights as floats, scaled: an embedding. Not for ternary.
void read_row(const Matrix& w, size_t row, float* to);

}  // namespace bitctl
