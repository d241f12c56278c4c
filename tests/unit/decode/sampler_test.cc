#include "decode/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <set>

namespace bitctl {
namespace {

std::vector<float> random_logits(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(size);
  for (auto& logit : logits) logit = normal(random);
  return logits;
}

std::map<int32_t, double> by_id(const std::vector<float>& logits, const SamplerOptions& options) {
  std::map<int32_t, double> probabilities;
  const auto kept = candidates(logits, options);
  EXPECT_TRUE(kept) << kept.error().message;
  for (const auto& [id, probability] : *kept) probabilities[id] = probability;
  return probabilities;
}

// The definition, spelled out: sort everything, cut, normalise.
std::map<int32_t, double> by_definition(const std::vector<float>& logits, const SamplerOptions& options) {
  std::vector<std::pair<double, int32_t>> sorted;
  for (size_t i = 0; i < logits.size(); ++i) sorted.emplace_back(logits[i], static_cast<int32_t>(i));
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  if (options.top_k > 0 && static_cast<size_t>(options.top_k) < sorted.size()) {
    const double last = sorted[static_cast<size_t>(options.top_k - 1)].first;
    std::erase_if(sorted, [&](const auto& token) { return token.first < last; });
  }
  double total = 0;
  for (auto& [value, id] : sorted) total += value = std::exp(value / options.temperature);
  std::map<int32_t, double> kept;
  double mass = 0;
  for (const auto& [value, id] : sorted) {
    if (options.top_p < 1 && !kept.empty() && mass >= options.top_p) break;
    kept[id] = value;
    mass += value / total;
  }
  double kept_total = 0;
  for (const auto& [id, value] : kept) kept_total += value;
  for (auto& [id, value] : kept) value /= kept_total;
  return kept;
}

TEST(Candidates, AreThoseOfTheDefinition) {
  const std::vector<SamplerOptions> all = {
      {.temperature = 1},
      {.temperature = 0.5},
      {.temperature = 2, .top_k = 7},
      {.temperature = 0.7, .top_p = 0.9},
      {.temperature = 1, .top_p = 0.1},
      {.temperature = 1, .top_p = 0},
      {.temperature = 1.5, .top_k = 50, .top_p = 0.8},
      {.temperature = 1, .top_k = 1},
      {.temperature = 1, .top_k = 100'000},
  };
  for (unsigned seed = 0; seed < 20; ++seed) {
    const auto logits = random_logits(1000, seed);
    for (const auto& options : all) {
      const auto ours = by_id(logits, options);
      const auto theirs = by_definition(logits, options);
      ASSERT_EQ(ours.size(), theirs.size());
      for (const auto& [id, probability] : theirs) {
        ASSERT_TRUE(ours.contains(id));
        EXPECT_NEAR(ours.at(id), probability, 1e-12);
      }
    }
  }
}

TEST(Candidates, TiesWithTheKthStay) {
  EXPECT_EQ(by_id({1, 3, 2, 2, 0}, {.temperature = 1, .top_k = 2}).size(), 3u);
}

TEST(Candidates, EqualOnesGoBySmallerId) {
  const auto kept = by_id({1, 1, 1, 1}, {.temperature = 1, .top_p = 0.5});
  EXPECT_EQ(kept, (std::map<int32_t, double>{{0, 0.5}, {1, 0.5}}));
}

TEST(Candidates, MinPIsRelativeToTheLargest) {
  const std::vector<float> logits = {0, std::log(0.5F), std::log(0.2F), std::log(0.1F)};
  EXPECT_EQ(by_id(logits, {.temperature = 1, .min_p = 0.15}).size(), 3u);
  EXPECT_EQ(by_id(logits, {.temperature = 1, .min_p = 1}).size(), 1u);
}

TEST(Candidates, TypicalOnesAreNearestToTheEntropy) {
  // Ten tokens: one of 0.5, nine of 0.0556. The entropy, 1.79, is nearer to -log 0.5 than to -log 0.0556.
  std::vector<float> logits(10, std::log(0.5F / 9));
  logits[4] = std::log(0.5F);
  EXPECT_EQ(by_id(logits, {.temperature = 1, .typical_p = 0.4}), (std::map<int32_t, double>{{4, 1.0}}));
  EXPECT_EQ(by_id(logits, {.temperature = 1, .typical_p = 0.6}).size(), 10u) << "the nine are equally far";
}

// A small temperature makes probabilities that no double holds, whose information is infinite.
TEST(Candidates, TypicalOnesAreThoseThatCanBeDrawn) {
  const std::vector<float> logits = {-20, 0, -30, -25};
  const auto kept = by_id(logits, {.temperature = 0.01, .typical_p = 0.9});
  EXPECT_EQ(kept, (std::map<int32_t, double>{{1, 1.0}}));
}

TEST(Candidates, ThePenaltyIsForWhatStandsInTheContextAlsoWithoutSampling) {
  const std::vector<float> logits = {2, 1.5, -1};
  const std::vector<int32_t> context = {0, 0, 2, 7, -1};
  EXPECT_EQ(sample(logits, {.repetition_penalty = 2}, 0, context), 1) << "2 / 2 is less than 1.5, once";
  EXPECT_EQ(sample(logits, {.repetition_penalty = 1.2}, 0, context), 0);
  EXPECT_EQ(sample(logits, {.repetition_penalty = 2}, 0), 0) << "nothing stands there yet";
  const auto kept = *candidates(logits, {.temperature = 1, .repetition_penalty = 2}, context);
  EXPECT_NEAR(kept[2].probability / kept[1].probability, std::exp(-2 - 1.5), 1e-9)
      << "-1 * 2: less likely too";
}

TEST(Candidates, MinusInfinityForbidsAToken) {
  EXPECT_EQ(by_id({-INFINITY, 1, -INFINITY}, {.temperature = 1}), (std::map<int32_t, double>{{1, 1.0}}));
  EXPECT_EQ(sample(std::vector<float>{-INFINITY, -5, -INFINITY}, {}, 0), 1);
}

TEST(Sample, TemperatureZeroTakesTheFirstOfTheLargest) {
  EXPECT_EQ(
      sample(std::vector<float>{1, 5, 5, 2}, {.temperature = 0, .top_k = 3, .top_p = 0.1, .seed = 9}, 3), 1);
}

TEST(Sample, SeedAndPositionDecide) {
  const auto logits = random_logits(500, 1);
  std::vector<int32_t> first, again, other_seed;
  for (uint64_t position = 0; position < 100; ++position) {
    first.push_back(*sample(logits, {.temperature = 1, .seed = 7}, position));
    again.push_back(*sample(logits, {.temperature = 1, .seed = 7}, position));
    other_seed.push_back(*sample(logits, {.temperature = 1, .seed = 8}, position));
  }
  EXPECT_EQ(first, again);
  EXPECT_NE(first, other_seed);
  EXPECT_GT(std::set<int32_t>(first.begin(), first.end()).size(), 10u);
}

// The draws follow the probabilities: chi-square with 7 degrees of freedom, 0.1 % point 24.3. The seed is
// fixed.
TEST(Sample, DrawsFollowTheProbabilities) {
  const std::vector<float> logits = {0, 0.5, 1, 1.5, 2, -1, -0.5, 0.25};
  for (const SamplerOptions& options :
       {SamplerOptions{.temperature = 1, .seed = 3},
        SamplerOptions{.temperature = 0.8, .top_k = 6, .top_p = 0.95, .seed = 4}}) {
    const auto expected = by_id(logits, options);
    std::map<int32_t, int> counts;
    constexpr int kDraws = 20'000;
    for (uint64_t position = 0; position < kDraws; ++position) ++counts[*sample(logits, options, position)];
    double chi_square = 0;
    for (const auto& [id, count] : counts) ASSERT_TRUE(expected.contains(id));
    for (const auto& [id, probability] : expected)
      chi_square += std::pow(counts[id] - kDraws * probability, 2) / (kDraws * probability);
    EXPECT_LT(chi_square, 24.3);
  }
}

struct Bad {
  const char* name;
  std::vector<float> logits;
  SamplerOptions options;
  const char* reason;
};

class BadSample : public testing::TestWithParam<Bad> {};

TEST_P(BadSample, IsRefusedNotSorted) {
  for (const double temperature : {GetParam().options.temperature, 1.0}) {
    SamplerOptions options = GetParam().options;
    if (options.temperature == 0) options.temperature = temperature;
    const auto token = sample(GetParam().logits, options, 0);
    ASSERT_FALSE(token);
    EXPECT_EQ(token.error().kind, ErrorKind::invalid);
    EXPECT_NE(token.error().message.find(GetParam().reason), std::string::npos) << token.error().message;
  }
}

TEST(Sample, GreedyLooksAtNothingElse) {
  EXPECT_EQ(sample(std::vector<float>{1, 5, 2}, {.top_k = -1, .top_p = NAN}, 0), 1);
}

INSTANTIATE_TEST_SUITE_P(
    Each, BadSample,
    testing::Values(Bad{"nan", {1, NAN, 3}, {}, "the logit of token 1 is nan"},
                    Bad{"nan_first", {NAN, 2, 3}, {}, "the logit of token 0 is nan"},
                    Bad{"infinity", {1, 2, INFINITY}, {}, "the logit of token 2 is inf"},
                    Bad{"none", {}, {}, "no token is allowed"},
                    Bad{"all_forbidden", {-INFINITY, -INFINITY}, {}, "no token is allowed"},
                    Bad{"temperature", {1, 2}, {.temperature = -1}, "temperature -1"},
                    Bad{"temperature_nan", {1, 2}, {.temperature = NAN}, "temperature nan"},
                    Bad{"temperature_infinite", {1, 2}, {.temperature = INFINITY}, "temperature inf"},
                    Bad{"top_p", {1, 2}, {.temperature = 1, .top_p = 1.5}, "top_p 1.5"},
                    Bad{"top_p_nan", {1, 2}, {.temperature = 1, .top_p = NAN}, "top_p nan"},
                    Bad{"top_k", {1, 2}, {.temperature = 1, .top_k = -1}, "top_k -1"},
                    Bad{"min_p", {1, 2}, {.temperature = 1, .min_p = 1.1}, "min_p 1.1"},
                    Bad{"typical_p", {1, 2}, {.temperature = 1, .typical_p = 0}, "typical_p 0"},
                    Bad{"penalty", {1, 2}, {.repetition_penalty = 0}, "repetition_penalty 0"},
                    Bad{"penalty_nan", {1, 2}, {.repetition_penalty = NAN}, "repetition_penalty nan"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace bitctl
