#include "kernels/matmul.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/level.h"

namespace bitctl {
namespace {

// A piece is some microseconds of a core's share of the memory, and fits its cache beside the activations.
constexpr size_t kPieceBytes = size_t{64} << 10;
constexpr size_t kPiecesAThread = 4;  // so that one thread held up leaves the others little to wait for
constexpr size_t kTileUnits = 4;      // the most rows that a level takes at once: it gets whole tiles
constexpr size_t kTokensAPiece = 8;

size_t bytes_of(Matrix::Type type) {
  switch (type) {
    case Matrix::Type::f32:
      return 4;
    case Matrix::Type::bf16:
    case Matrix::Type::f16:
      return 2;
    case Matrix::Type::int8:
    case Matrix::Type::ternary:
      return 1;
  }
  return 0;
}

// What pieces are counted in: rows of `data`.
size_t units_of(const Matrix& w) { return w.type == Matrix::Type::ternary ? w.rows / 4 : w.rows; }

// Memory of one thread, kept from one call to the next. Loads that cross lines of the cache take twice as
// long, and activations are loaded far more often than the weights.
struct alignas(64) Line {
  unsigned char bytes[64];
};
struct Scratch {
  std::vector<Line> floats, integers;
  std::vector<float> scales;
  std::vector<int32_t> sums;
};
thread_local Scratch scratch;

template <class T>
T* at_least(std::vector<Line>& lines, size_t count) {
  lines.resize(std::max(lines.size(), (count * sizeof(T) + sizeof(Line) - 1) / sizeof(Line)));
  return reinterpret_cast<T*>(lines.data());
}

template <class T>
T* at_least(std::vector<T>& values, size_t count) {
  values.resize(std::max(values.size(), count));
  return values.data();
}

const float* aligned(const float* x, size_t count) {
  if (reinterpret_cast<uintptr_t>(x) % sizeof(Line) == 0) return x;
  return static_cast<const float*>(
      std::memcpy(at_least<float>(scratch.floats, count), x, count * sizeof(float)));
}

void quantize(Pool& pool, const Level& level, size_t columns, Activations& x) {
  const size_t stride = (columns + kIntegerBlock - 1) / kIntegerBlock * kIntegerBlock;
  auto* integers = at_least<int8_t>(scratch.integers, x.tokens * stride);
  auto* scales = at_least(scratch.scales, x.tokens);
  auto* sums = at_least(scratch.sums, x.tokens);
  pool.run(x.tokens, kTokensAPiece, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t)
      scales[t] = level.quantize(x.floats + t * columns, columns, integers + t * stride, stride, sums + t);
  });
  x.integers = integers;
  x.integer_stride = stride;
  x.scales = scales;
  x.integer_sums = sums;
}

size_t units_a_piece(std::span<const Product> products, size_t units, int threads) {
  size_t unit_bytes = 1;
  for (const Product& product : products)
    unit_bytes = std::max(unit_bytes, product.w.columns * bytes_of(product.w.type));
  const size_t pieces = static_cast<size_t>(threads) * kPiecesAThread;
  const size_t wanted = std::max<size_t>(1, std::min(kPieceBytes / unit_bytes, units / pieces));
  return (wanted + kTileUnits - 1) / kTileUnits * kTileUnits;
}

}  // namespace

void matmul(Pool& pool, std::span<const Product> products, const float* x, size_t tokens, Isa isa) {
  const Level& level = level_of(isa);
  Activations activations = {.tokens = tokens, .floats = x};
  if (!products.empty()) activations.floats = aligned(x, tokens * products[0].w.columns);
  size_t units = 0;
  for (const Product& product : products) {
    units += units_of(product.w);
    if (product.w.type == Matrix::Type::ternary && activations.integers == nullptr)
      quantize(pool, level, product.w.columns, activations);
  }
  pool.run(units, units_a_piece(products, units, pool.threads()), [&](size_t begin, size_t end) {
    size_t first = 0;  // unit of the product
    for (const Product& product : products) {
      const size_t last = first + units_of(product.w);
      if (begin < last && end > first)
        level.multiply(product.w, std::max(begin, first) - first, std::min(end, last) - first, activations,
                       product.y);
      first = last;
    }
  });
}

void read_row(const Matrix& w, size_t row, float* to) {
  level_of(default_isa()).read(w, row, to);
  if (w.type == Matrix::Type::int8)
    for (size_t c = 0; c < w.columns; ++c) to[c] *= w.scales[row];
}

}  // namespace bitctl
