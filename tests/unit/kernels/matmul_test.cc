#include "kernels/matmul.h"

#include <gtest/gtest.h>

#include <vector>

namespace bitctl {
namespace {

TEST(Matmul, TernaryOfBitNetsPacking) {
  // Rows 0 … 3 of two columns: (1, -1), (0, 1), (-1, 0), (1, 1), value + 1 in two bits, row 0 lowest.
  const uint8_t packed[2] = {2 | 1 << 2 | 0 << 4 | 2 << 6, 0 | 2 << 2 | 1 << 4 | 2 << 6};
  const float scale = 0.5F;
  const Matrix w{Matrix::Type::ternary, 4, 2, packed, &scale};
  const std::vector<float> x = {127, 10};  // whole already
  std::vector<float> y(4);
  Pool pool(1);
  const Product product{w, y.data()};
  matmul(pool, {&product, 1}, x.data(), 1);
  EXPECT_EQ(y, (std::vector<float>{58.5, 5, -63.5, 68.5}));
}

}  // namespace
}  // namespace bitctl
