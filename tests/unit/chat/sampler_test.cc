#include "chat/sampler.h"

#include <gmock/gmock.h>

#include <array>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

namespace bitctl {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(Sampler, GreedyTakesTheLikeliestAndTheFirstOfEquals) {
  EXPECT_EQ(pick_token(std::vector<float>{1, 3, 2}, {}, 0.9), 1);
  EXPECT_EQ(pick_token(std::vector<float>{1, 3, 3}, {}, 0.9), 1);
  EXPECT_EQ(pick_token(std::vector<float>{kNaN, -kInfinity, -5}, {}, 0), 2);
  EXPECT_EQ(pick_token(std::vector<float>{kNaN, kNaN}, {}, 0), -1);
}

// The share of each token over chances spread evenly.
std::vector<double> shares(const std::vector<float>& logits, const Sampling& sampling) {
  constexpr int kDraws = 20'000;
  std::vector<double> share(logits.size());
  for (int i = 0; i < kDraws; ++i)
    share[static_cast<size_t>(pick_token(logits, sampling, (i + 0.5) / kDraws))] += 1.0 / kDraws;
  return share;
}

const std::vector<float> kLogits = {std::log(0.1F), std::log(0.5F), std::log(0.3F), std::log(0.1F)};

MATCHER_P(Near, expected, "") {
  if (arg.size() != std::size(expected)) return false;
  for (size_t i = 0; i < arg.size(); ++i)
    if (std::abs(arg[i] - expected[i]) > 1e-3) return false;
  return true;
}

TEST(Sampler, DrawsByProbability) {
  EXPECT_THAT(shares(kLogits, {.temperature = 1}), Near(std::vector<double>{0.1, 0.5, 0.3, 0.1}));
  const double total = 0.01 + 0.25 + 0.09 + 0.01;  // temperature 0.5 squares them
  EXPECT_THAT(shares(kLogits, {.temperature = 0.5}),
              Near(std::vector<double>{0.01 / total, 0.25 / total, 0.09 / total, 0.01 / total}));
}

TEST(Sampler, TopKAndTopPKeepTheLikeliest) {
  EXPECT_THAT(shares(kLogits, {.temperature = 1, .top_k = 2}), Near(std::vector<double>{0, 0.625, 0.375, 0}));
  EXPECT_THAT(shares(kLogits, {.temperature = 1, .top_p = 0.79}),
              Near(std::vector<double>{0, 0.625, 0.375, 0}));
  EXPECT_THAT(shares(kLogits, {.temperature = 1, .top_p = 0.81}),
              Near(std::vector<double>{1 / 9., 5 / 9., 3 / 9., 0}));
  EXPECT_THAT(shares(kLogits, {.temperature = 1, .top_p = 1e-9}), Near(std::vector<double>{0, 1, 0, 0}));
  // top_p is of what top_k has left: 0.5 of 0.8 is 62 %.
  EXPECT_THAT(shares(kLogits, {.temperature = 1, .top_p = 0.6, .top_k = 2}),
              Near(std::vector<double>{0, 1, 0, 0}));
}

TEST(Sampler, NotEveryLogitNeedsToBeANumber) {
  const std::vector<float> logits = {kNaN, 0, -kInfinity, 0};
  EXPECT_THAT(shares(logits, {.temperature = 1}), Near(std::vector<double>{0, 0.5, 0, 0.5}));
  EXPECT_EQ(pick_token(std::vector<float>{0, kInfinity}, {.temperature = 1}, 0.1), 1);
}

TEST(Sampler, AChanceDependsOnSeedAndPositionAlone) {
  EXPECT_EQ(chance_at(1, 2), chance_at(1, 2));
  std::set<double> seen;
  double sum = 0;
  for (uint64_t seed = 0; seed < 100; ++seed)
    for (uint64_t position = 0; position < 100; ++position) {
      const double chance = chance_at(seed, position);
      ASSERT_GE(chance, 0);
      ASSERT_LT(chance, 1);
      seen.insert(chance);
      sum += chance;
    }
  EXPECT_EQ(seen.size(), 10'000u);
  EXPECT_NEAR(sum / 10'000, 0.5, 0.02);
}

}  // namespace
}  // namespace bitctl
