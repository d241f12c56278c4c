// Rows of floats as small integers with a scale. Pure.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitctl {

// One row: to[i] = round(row[i] / scale) in -127 … 127, a tie to even; the scale, max|row| / 127, comes back.
// A row of zeros has scale 1. NaN and infinity become 0 and ±127.
float quantize_row(const float* row, size_t columns, int8_t* to);

// BitNet's: -1, 0 or 1 by round(value · inverse_mean), a tie to even; `inverse_mean` is one over the mean of
// the whole tensor's magnitudes (at least 1e-5). NaN becomes 0.
int ternary_of(float value, float inverse_mean);

// BitNet's packing of `columns` columns of four rows, each a quarter of the matrix apart: value + 1 in two
// bits, the first row lowest.
void pack_ternary(const float* const rows[4], size_t columns, float inverse_mean, uint8_t* to);

}  // namespace bitctl
