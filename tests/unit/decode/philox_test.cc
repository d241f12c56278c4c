#include "decode/philox.h"

#include <gtest/gtest.h>

namespace bitctl {
namespace {

// The known answers that the authors publish with Random123.
TEST(Philox, GivesTheKnownAnswers) {
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(philox({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(UniformAt, DependsOnSeedAndPosition) {
  EXPECT_EQ(uniform_at(1, 2), uniform_at(1, 2));
  EXPECT_NE(uniform_at(1, 2), uniform_at(2, 1));
  EXPECT_NE(uniform_at(1, 2), uniform_at(1, uint64_t{2} << 32));
  EXPECT_NE(uniform_at(1, 2), uniform_at(uint64_t{1} << 32, 2));
}

TEST(UniformAt, FillsTheUnitIntervalEvenly) {
  constexpr int kDraws = 100'000, kBins = 10;
  int counts[kBins] = {};
  for (uint64_t position = 0; position < kDraws; ++position) {
    const double u = uniform_at(42, position);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    ++counts[static_cast<int>(u * kBins)];
  }
  for (const int count : counts) EXPECT_NEAR(count, kDraws / kBins, 500);  // five standard deviations
}

}  // namespace
}  // namespace bitctl
