// Matrices for tests, with the values that they stand for.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <stdexcept>
#include <vector>

#include "kernels/matrix.h"

namespace bitctl {

// Memory whose last byte is followed by none: a read past it is a fault.
class EndOfMemory {
 public:
  explicit EndOfMemory(size_t bytes) {
    const size_t page = ::getpagesize();
    size_ = (bytes + page - 1) / page * page + page;
    memory_ = static_cast<char*>(
        ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory_ == MAP_FAILED || ::mprotect(memory_ + size_ - page, page, PROT_NONE) != 0)
      throw std::runtime_error("no memory");
    data_ = memory_ + size_ - page - bytes;
  }
  ~EndOfMemory() { ::munmap(memory_, size_); }
  EndOfMemory(const EndOfMemory&) = delete;
  char* data() const { return data_; }

 private:
  size_t size_;
  char* memory_;
  char* data_;
};

inline size_t bytes_of(Matrix::Type type) {
  return type == Matrix::Type::f32 ? 4 : type == Matrix::Type::bf16 || type == Matrix::Type::f16 ? 2 : 1;
}

class Weights {
 public:
  // Random values; ternary ones hold all four patterns of bits, the one that means nothing as 2.
  Weights(Matrix::Type type, size_t rows, size_t columns, unsigned seed = 1)
      : memory_((type == Matrix::Type::ternary ? rows / 4 : rows) * columns * bytes_of(type)),
        scales_(rows),
        values_(rows * columns) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (float& scale : scales_) scale = 0.75F + uniform(random) / 4;
    matrix_ = {type, rows, columns, memory_.data(), scales_.data()};
    if (type == Matrix::Type::ternary) std::memset(memory_.data(), 0, rows / 4 * columns);
    for (size_t row = 0; row < rows; ++row)
      for (size_t c = 0; c < columns; ++c)
        set(row, c, type == Matrix::Type::ternary ? static_cast<float>(random() % 4) - 1 : uniform(random));
  }

  const Matrix& matrix() const { return matrix_; }
  // What the matrix says, without scales.
  double value(size_t row, size_t column) const { return values_[row * matrix_.columns + column]; }

  // The nearest that the type has. int8: in 1/127.
  void set(size_t row, size_t column, float value) {
    const size_t at = row * matrix_.columns + column;
    values_[at] = value;
    switch (matrix_.type) {
      case Matrix::Type::f32:
        return put(at, value);
      case Matrix::Type::bf16: {
        const auto bits = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
        values_[at] = std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
        return put(at, bits);
      }
      case Matrix::Type::f16: {
        const auto half = static_cast<_Float16>(value);
        values_[at] = static_cast<float>(half);
        return put(at, half);
      }
      case Matrix::Type::int8: {
        const auto integer = static_cast<int8_t>(std::lround(value * 127));
        values_[at] = integer;
        return put(at, integer);
      }
      case Matrix::Type::ternary: {
        const size_t quarter = matrix_.rows / 4;
        char& byte = memory_.data()[row % quarter * matrix_.columns + column];
        const auto shift = 2 * (row / quarter);
        byte = static_cast<char>((byte & ~(3 << shift)) | static_cast<int>(value + 1) << shift);
      }
    }
  }

 private:
  template <class T>
  void put(size_t at, T value) {
    std::memcpy(memory_.data() + at * sizeof value, &value, sizeof value);
  }

  EndOfMemory memory_;
  std::vector<float> scales_;
  std::vector<float> values_;
  Matrix matrix_;
};

}  // namespace bitctl
