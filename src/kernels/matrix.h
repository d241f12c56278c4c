// A matrix of weights where it lies, as its file has it.
#pragma once

#include <cstddef>

namespace bitctl {

struct Matrix {
  enum class Type {
    f32,
    bf16,
    f16,
    int8,     // row r stands for data[r, …] · scales[r]
    ternary,  // BitNet's packing, rows a multiple of 4: bits 2k and 2k + 1 of byte [r, c] are 1 + the value
              // at [r + k · rows / 4, c]
  };
  Type type = Type::f32;
  size_t rows = 0;
  size_t columns = 0;
  const void* data = nullptr;  // row-major, borrowed, aligned for nothing; ternary: [rows / 4, columns] bytes
  const float* scales = nullptr;  // int8: one a row; ternary: one, by which the sums are multiplied
};

}  // namespace bitctl
