#include "model/rope_config.h"

#include <gmock/gmock.h>

#include <cmath>

namespace bitctl {
namespace {

using testing::ElementsAre;
using testing::FloatEq;
using testing::FloatNear;

RopeConfig rope(RopeConfig::Type type) {
  RopeConfig config;
  config.type = type;
  config.theta = 10'000;
  config.factor = 4;
  config.original_max_position_embeddings = 64;
  return config;
}

TEST(RopeFrequencies, ArePowersOfTheta) {
  EXPECT_THAT(rope_frequencies(rope(RopeConfig::Type::plain), 8),
              ElementsAre(FloatEq(1), FloatEq(0.1F), FloatEq(0.01F), FloatEq(0.001F)));
}

TEST(RopeFrequencies, OfAPartOfTheHead) {
  RopeConfig half = rope(RopeConfig::Type::plain);
  half.rotated_part = 0.5;
  EXPECT_EQ(rotated_dimensions(half, 8), 4);
  EXPECT_THAT(rope_frequencies(half, 8), ElementsAre(FloatEq(1), FloatEq(0.01F)));
}

TEST(RopeFrequencies, LinearSlowsAllAndLlama3TheLongWaves) {
  EXPECT_THAT(rope_frequencies(rope(RopeConfig::Type::linear), 4),
              ElementsAre(FloatEq(0.25F), FloatEq(0.0025F)));
  // Waves of 6 (below 64 / 4: kept), 63 (within: between) and 628 positions (above 64 / 1: a quarter).
  const auto frequencies = rope_frequencies(rope(RopeConfig::Type::llama3), 8);
  EXPECT_EQ(frequencies[0], 1);
  const double smooth = (64 / (2 * M_PI / 0.1) - 1) / 3;
  EXPECT_THAT(frequencies[1], FloatNear(static_cast<float>((1 - smooth) * 0.1 / 4 + smooth * 0.1), 1e-7F));
  EXPECT_FLOAT_EQ(frequencies[2], 0.01F / 4);
}

TEST(RopeFrequencies, YarnKeepsTheFastAndStretchesTheSlow) {
  RopeConfig config = rope(RopeConfig::Type::yarn);
  const auto frequencies = rope_frequencies(config, 64);
  EXPECT_EQ(frequencies[0], 1);
  EXPECT_FLOAT_EQ(frequencies[31], std::pow(10'000.0F, -31.0F / 32) / 4);
}

TEST(RopeFrequencies, LongRopeHasAFactorForEach) {
  RopeConfig config = rope(RopeConfig::Type::longrope);
  config.short_factor = {1, 2};
  config.long_factor = {4, 8};
  EXPECT_THAT(rope_frequencies(config, 4), ElementsAre(FloatEq(1), FloatEq(0.005F)));
  EXPECT_THAT(rope_frequencies(config, 4, true), ElementsAre(FloatEq(0.25F), FloatEq(0.00125F)));
}

TEST(ParseRope, EachTypeOfLayerHasItsOwn) {
  const Json nested = Json::parse(R"({"rope_parameters": {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 5e3}}})");
  ConfigFields fields(nested);
  const RopeConfig global = parse_rope(fields, 64, 1, "full_attention");
  const RopeConfig local = parse_rope(fields, 64, 1, "sliding_attention");
  EXPECT_EQ(fields.error(), "");
  EXPECT_EQ(global.type, RopeConfig::Type::linear);
  EXPECT_EQ(global.theta, 1e6);
  EXPECT_EQ(local.type, RopeConfig::Type::plain);
  EXPECT_EQ(local.theta, 5e3);
}

TEST(ParseRope, AttentionFactors) {
  const auto factor_of = [](const char* json) {
    const Json config = Json::parse(json);
    ConfigFields fields(config);
    const RopeConfig rope = parse_rope(fields, 256, 10'000);
    EXPECT_EQ(fields.error(), "");
    return rope.attention_factor;
  };
  EXPECT_DOUBLE_EQ(factor_of(R"({"rope_scaling": {"type": "yarn", "factor": 4.0}})"), 0.1 * std::log(4) + 1);
  EXPECT_DOUBLE_EQ(
      factor_of(R"({"rope_scaling": {"type": "yarn", "factor": 4.0, "attention_factor": 1.25}})"), 1.25);
  EXPECT_DOUBLE_EQ(factor_of(R"({"original_max_position_embeddings": 64, "rope_scaling":
                                 {"type": "su", "short_factor": [1], "long_factor": [1]}})"),
                   std::sqrt(1 + std::log(4) / std::log(64)));
}

}  // namespace
}  // namespace bitctl
