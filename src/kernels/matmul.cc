#include "kernels/matmul.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

namespace bitctl {
namespace {

constexpr size_t kRowsAPiece = 16;

float from_bf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

float from_f16(uint16_t bits) { return static_cast<float>(std::bit_cast<_Float16>(bits)); }

float weight_at(const Matrix& w, size_t row, size_t column) {
  const size_t at = row * w.columns + column;
  switch (w.type) {
    case Matrix::Type::f32:
      return static_cast<const float*>(w.data)[at];
    case Matrix::Type::bf16:
      return from_bf16(static_cast<const uint16_t*>(w.data)[at]);
    case Matrix::Type::f16:
      return from_f16(static_cast<const uint16_t*>(w.data)[at]);
    case Matrix::Type::int8:
      return static_cast<float>(static_cast<const int8_t*>(w.data)[at]);
    case Matrix::Type::ternary: {
      const size_t quarter = w.rows / 4;
      const auto byte = static_cast<const uint8_t*>(w.data)[row % quarter * w.columns + column];
      return static_cast<float>((byte >> (2 * (row / quarter)) & 3) - 1);
    }
  }
  return 0;
}

// As BitNet has it: whole numbers of at most 8 bits, and what they were multiplied by.
float quantize(const float* x, size_t columns, std::vector<float>& to) {
  float most = 1e-5F;
  for (size_t i = 0; i < columns; ++i) most = std::max(most, std::fabs(x[i]));
  const float scale = 127.0F / most;
  to.resize(columns);
  for (size_t i = 0; i < columns; ++i) to[i] = std::clamp(std::nearbyint(x[i] * scale), -128.0F, 127.0F);
  return scale;
}

float dot(const Matrix& w, size_t row, const float* x) {
  float sum = 0;
  for (size_t i = 0; i < w.columns; ++i) sum += weight_at(w, row, i) * x[i];
  return sum;
}

}  // namespace

void matmul(Pool& pool, std::span<const Product> products, const float* x, size_t tokens) {
  for (const Product& product : products) {
    const Matrix& w = product.w;
    for (size_t t = 0; t < tokens; ++t) {
      const float* input = x + t * w.columns;
      float input_scale = 1;
      std::vector<float> integers;
      if (w.type == Matrix::Type::ternary) {
        input_scale = quantize(input, w.columns, integers);
        input = integers.data();
      }
      pool.run(w.rows, kRowsAPiece, [&](size_t begin, size_t end) {
        for (size_t row = begin; row < end; ++row) {
          float sum = dot(w, row, input);
          if (w.type == Matrix::Type::int8) sum *= w.scales[row];
          if (w.type == Matrix::Type::ternary) sum = sum / input_scale * w.scales[0];
          product.y[t * w.rows + row] = sum;
        }
      });
    }
  }
}

void read_row(const Matrix& w, size_t row, float* to) {
  for (size_t i = 0; i < w.columns; ++i) {
    const float value = weight_at(w, row, i);
    to[i] = w.type == Matrix::Type::int8 ? value * w.scales[row] : value;
  }
}

}  // namespace bitctl
