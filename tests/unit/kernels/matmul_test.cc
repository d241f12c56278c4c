#include "kernels/matmul.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <limits>
#include <new>

#include "kernels/weights.h"

namespace {
std::atomic<size_t> allocations = 0;

void* allocate(size_t bytes, size_t alignment) {
  ++allocations;
  void* memory = nullptr;
  if (::posix_memalign(&memory, alignment, bytes) != 0) throw std::bad_alloc();
  return memory;
}
}  // namespace

// Every allocation of this program is counted.
void* operator new(size_t bytes) { return allocate(bytes, alignof(std::max_align_t)); }
void* operator new(size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

namespace bitctl {
namespace {

using Type = Matrix::Type;
constexpr Type kFloats[] = {Type::f32, Type::bf16, Type::f16, Type::int8};
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Every test at every level that this machine has.
class Matmul : public testing::TestWithParam<Isa> {
 protected:
  std::vector<float> multiply(const Matrix& w, const std::vector<float>& x, size_t tokens, Pool& pool) {
    std::vector<float> y(tokens * w.rows, -77);
    const Product product{w, y.data()};
    matmul(pool, {&product, 1}, x.data(), tokens, GetParam());
    return y;
  }
  std::vector<float> multiply(const Matrix& w, const std::vector<float>& x, size_t tokens = 1) {
    return multiply(w, x, tokens, pool_);
  }

  Pool pool_{1};
};

std::vector<Isa> levels() {
  std::vector<Isa> found;
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512})
    if (isa <= machine_isa()) found.push_back(isa);
  return found;
}

INSTANTIATE_TEST_SUITE_P(Levels, Matmul, testing::ValuesIn(levels()),
                         [](const auto& each) { return std::string(name_of(each.param)); });

std::vector<float> activations(size_t count, unsigned seed = 7) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (float& each : x) each = normal(random);
  return x;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_P(Matmul, OfFloatsIsTheSumInDoublePrecision) {
  constexpr size_t kRows = 5, kTokens = 7;
  for (const Type type : kFloats)
    for (size_t columns = 1; columns <= 300; ++columns) {
      const Weights w(type, kRows, columns, columns);
      const std::vector<float> x = activations(kTokens * columns);
      const std::vector<float> y = multiply(w.matrix(), x, kTokens);
      for (size_t t = 0; t < kTokens; ++t)
        for (size_t row = 0; row < kRows; ++row) {
          double sum = 0, magnitude = 0;
          for (size_t c = 0; c < columns; ++c) {
            const double product = w.value(row, c) * x[t * columns + c];
            sum += product;
            magnitude += std::fabs(product);
          }
          const double scale = type == Type::int8 ? w.matrix().scales[row] : 1;
          ASSERT_NEAR(y[t * kRows + row], sum * scale, 1e-6 * magnitude * scale)
              << columns << " columns of type " << static_cast<int>(type);
        }
    }
}

// As BitNet's reference quantizes: 127 / max |x|, half to even.
std::vector<float> ternary_reference(const Weights& w, const std::vector<float>& x, size_t tokens) {
  const auto& [type, rows, columns, data, scales] = w.matrix();
  std::vector<float> y(tokens * rows);
  for (size_t t = 0; t < tokens; ++t) {
    float most = 1e-5F;
    for (size_t c = 0; c < columns; ++c) most = std::max(most, std::fabs(x[t * columns + c]));
    const float scale = 127.0F / most;
    for (size_t row = 0; row < rows; ++row) {
      int64_t sum = 0;
      for (size_t c = 0; c < columns; ++c)
        sum += static_cast<int64_t>(w.value(row, c)) *
               static_cast<int64_t>(std::nearbyint(x[t * columns + c] * scale));
      y[t * rows + row] = static_cast<float>(sum) / scale * scales[0];
    }
  }
  return y;
}

TEST_P(Matmul, OfTernaryWeightsIsExact) {
  constexpr size_t kRows = 12, kTokens = 8;
  Pool two(2), many(5);
  for (size_t columns = 1; columns <= 300; ++columns) {
    const Weights w(Type::ternary, kRows, columns, columns);
    const std::vector<float> x = activations(kTokens * columns);
    const std::vector<float> expected = ternary_reference(w, x, kTokens);
    ASSERT_TRUE(same_bits(multiply(w.matrix(), x, kTokens), expected)) << columns;
    ASSERT_TRUE(same_bits(multiply(w.matrix(), x, kTokens, two), expected)) << columns;
    ASSERT_TRUE(same_bits(multiply(w.matrix(), x, kTokens, many), expected)) << columns;
  }
}

// Where the partial sums are narrow: every weight and every activation at its largest.
TEST_P(Matmul, TheLargestTernarySumsDoNotOverflow) {
  for (const size_t columns : {1024, 1056, 65536, 140000})
    for (const float weight : {-1.0F, 2.0F})
      for (const float value : {-1.0F, 1.0F}) {
        Weights w(Type::ternary, 4, columns);
        for (size_t row = 0; row < 4; ++row)
          for (size_t c = 0; c < columns; ++c) w.set(row, c, weight);
        const std::vector<float> x(columns, value);
        ASSERT_TRUE(same_bits(multiply(w.matrix(), x), ternary_reference(w, x, 1))) << columns;
      }
}

TEST_P(Matmul, ATernaryTokenThatIsNotFiniteGivesNaNAndTheOthersTheirs) {
  const Weights w(Type::ternary, 8, 70);
  for (const float bad : {std::nanf(""), kInfinity, -kInfinity}) {
    std::vector<float> x = activations(3 * 70);
    const std::vector<float> good = multiply(w.matrix(), x, 3);
    x[70 + 69] = bad;
    const std::vector<float> y = multiply(w.matrix(), x, 3);
    for (size_t i = 0; i < y.size(); ++i) EXPECT_TRUE(i / 8 == 1 ? std::isnan(y[i]) : y[i] == good[i]);
  }
}

TEST_P(Matmul, ATernaryTokenOfZerosGivesZeros) {
  const Weights w(Type::ternary, 8, 70);
  for (const float sum : multiply(w.matrix(), std::vector<float>(70))) EXPECT_EQ(sum, 0);
}

TEST_P(Matmul, ARowDependsOnNothingBesideIt) {
  constexpr size_t kRows = 48, kColumns = 331, kTokens = 13;
  Pool two(2), many(5);
  const std::vector<float> x = activations(kTokens * kColumns);
  for (const Type type : {Type::f32, Type::bf16, Type::f16, Type::int8, Type::ternary}) {
    const Weights w(type, kRows, kColumns);
    const std::vector<float> all = multiply(w.matrix(), x, kTokens);
    EXPECT_TRUE(same_bits(multiply(w.matrix(), x, kTokens, two), all));
    EXPECT_TRUE(same_bits(multiply(w.matrix(), x, kTokens, many), all));
    for (size_t tokens = 1; tokens < kTokens; ++tokens) {
      std::vector<float> first = multiply(w.matrix(), {x.begin(), x.begin() + tokens * kColumns}, tokens);
      EXPECT_TRUE(same_bits(first, {all.begin(), all.begin() + tokens * kRows})) << tokens << " tokens";
    }
    if (type == Type::ternary) continue;
    Matrix part = w.matrix();  // in another place of its piece
    part.rows -= 1;
    part.data = static_cast<const char*>(part.data) + kColumns * bytes_of(type);
    part.scales += 1;
    const std::vector<float> y = multiply(part, x, kTokens);
    for (size_t t = 0; t < kTokens; ++t)
      for (size_t row = 0; row < part.rows; ++row)
        ASSERT_EQ(y[t * part.rows + row], all[t * kRows + row + 1]);
  }
}

TEST_P(Matmul, WhereTheActivationsLieChangesNothing) {
  constexpr size_t kColumns = 96, kTokens = 3;
  const std::vector<float> x = activations(kTokens * kColumns);
  alignas(64) float memory[kTokens * kColumns + 16];
  for (const Type type : {Type::f32, Type::bf16, Type::f16, Type::int8, Type::ternary}) {
    const Weights w(type, 8, kColumns);
    const std::vector<float> expected = multiply(w.matrix(), x, kTokens);
    for (size_t offset = 0; offset < 16; ++offset) {
      std::copy(x.begin(), x.end(), memory + offset);
      std::vector<float> y(expected.size());
      const Product product{w.matrix(), y.data()};
      matmul(pool_, {&product, 1}, memory + offset, kTokens, GetParam());
      EXPECT_TRUE(same_bits(y, expected)) << offset;
    }
  }
}

TEST_P(Matmul, LevelsThatFuseAgreeToTheBit) {
  if (GetParam() == Isa::scalar) GTEST_SKIP() << "rounds each product";
  const std::vector<float> x = activations(2 * 331);
  for (const Type type : kFloats) {
    const Weights w(type, 9, 331);
    std::vector<float> avx2(2 * 9);
    const Product product{w.matrix(), avx2.data()};
    matmul(pool_, {&product, 1}, x.data(), 2, Isa::avx2);
    EXPECT_TRUE(same_bits(multiply(w.matrix(), x, 2), avx2));
  }
}

TEST_P(Matmul, WhatIsNotFiniteIsNotHidden) {
  for (const Type type : {Type::f32, Type::bf16, Type::f16})
    for (const size_t columns : {1, 40, 64, 77}) {
      Weights w(type, 3, columns);
      w.set(0, columns - 1, std::nanf(""));
      w.set(1, columns / 2, -kInfinity);
      const std::vector<float> y = multiply(w.matrix(), std::vector<float>(columns, 1));
      EXPECT_TRUE(std::isnan(y[0]));
      EXPECT_EQ(y[1], -kInfinity);
      EXPECT_TRUE(std::isfinite(y[2]));
    }
}

TEST_P(Matmul, DenormalWeightsAreZeroAndHalfPrecisionHasNone) {
  const std::vector<float> x(40, 0x1p100F);
  for (const Type type : {Type::f32, Type::bf16}) {
    Weights w(type, 1, 40);
    for (size_t c = 0; c < 40; ++c) w.set(0, c, 0x1p-130F);
    EXPECT_EQ(multiply(w.matrix(), x)[0], 0);
  }
  Weights w(Type::f16, 1, 40);
  for (size_t c = 0; c < 40; ++c) w.set(0, c, 0x1p-24F);
  EXPECT_EQ(multiply(w.matrix(), x)[0], 40 * 0x1p76F);
}

TEST_P(Matmul, AllocatesOnlyForALargerInput) {
  constexpr size_t kColumns = 130, kTokens = 5;
  const std::vector<float> x = activations(kTokens * kColumns + 1);
  std::vector<float> y(2 * kTokens * 64);
  Pool pool(3);
  for (const Type type : {Type::bf16, Type::ternary}) {
    const Weights w(type, 64, kColumns);
    const Product products[] = {{w.matrix(), y.data()}, {w.matrix(), &y[y.size() / 2]}};
    const auto run = [&](size_t tokens) { matmul(pool, products, &x[1], tokens, GetParam()); };
    run(kTokens);
    const size_t before = allocations;
    for (size_t tokens = 1; tokens <= kTokens; ++tokens) run(tokens);
    EXPECT_EQ(allocations, before);
  }
}

TEST_P(Matmul, TakesProductsOfManyKindsAtOnce) {
  constexpr size_t kColumns = 130, kTokens = 5;
  const std::vector<float> x = activations(kTokens * kColumns);
  const Weights kinds[] = {{Type::bf16, 30, kColumns},
                           {Type::ternary, 64, kColumns},
                           {Type::int8, 3, kColumns},
                           {Type::ternary, 4, kColumns, 9},
                           {Type::f32, 1, kColumns}};
  std::vector<std::vector<float>> y;
  std::vector<Product> products;
  y.reserve(std::size(kinds));
  for (const Weights& w : kinds)
    products.push_back({w.matrix(), y.emplace_back(kTokens * w.matrix().rows).data()});
  Pool pool(3);
  matmul(pool, products, x.data(), kTokens, GetParam());
  for (size_t i = 0; i < y.size(); ++i)
    EXPECT_TRUE(same_bits(y[i], multiply(kinds[i].matrix(), x, kTokens))) << "product " << i;
}

TEST(ReadRow, GivesTheValuesScaled) {
  for (const Type type : kFloats)
    for (const size_t columns : {1, 16, 31, 100}) {
      const Weights w(type, 3, columns);
      std::vector<float> row(columns);
      read_row(w.matrix(), 2, row.data());
      for (size_t c = 0; c < columns; ++c)
        ASSERT_EQ(row[c],
                  static_cast<float>(w.value(2, c)) * (type == Type::int8 ? w.matrix().scales[2] : 1));
    }
}

TEST(Ternary, IsBitNetsPacking) {
  // Rows 0 … 3 of two columns: (1, -1), (0, 1), (-1, 0), (1, 1), value + 1 in two bits, row 0 lowest.
  const uint8_t packed[2] = {2 | 1 << 2 | 0 << 4 | 2 << 6, 0 | 2 << 2 | 1 << 4 | 2 << 6};
  const float scale = 0.5F;
  const Matrix w{Type::ternary, 4, 2, packed, &scale};
  const std::vector<float> x = {127, 10};  // whole already
  std::vector<float> y(4);
  Pool pool(1);
  const Product product{w, y.data()};
  matmul(pool, {&product, 1}, x.data(), 1);
  EXPECT_EQ(y, (std::vector<float>{58.5, 5, -63.5, 68.5}));
}

}  // namespace
}  // namespace bitctl
