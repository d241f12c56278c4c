#include "chat/sampling.h"

#include <gmock/gmock.h>

namespace bitctl {
namespace {

using testing::HasSubstr;

Sampling with(SamplingChoices chosen, Json model = Json::object()) {
  Sampling sampling(std::move(chosen), std::nullopt);
  sampling.use_model(std::move(model));
  return sampling;
}

TEST(Sampling, IsGreedyUnlessSomebodySaysOtherwise) {
  EXPECT_EQ(with({}).options().temperature, 0);
  EXPECT_EQ(with({}, {{"temperature", 0.7}}).options().temperature, 0) << "without do_sample";
  EXPECT_EQ(with({}, {{"do_sample", true}, {"temperature", 0.7}}).options().temperature, 0.7);
  EXPECT_EQ(with({}, {{"do_sample", true}}).options().temperature, 1);
  EXPECT_EQ(with({{"temperature", 0.2}}, {{"do_sample", true}, {"temperature", 0.7}}).options().temperature,
            0.2);
  EXPECT_EQ(with({{"min_p", 0.1}}).options().temperature, 1) << "it only counts in sampling";
  EXPECT_EQ(with({{"repetition_penalty", 1.1}}).options().temperature, 0) << "it counts always";
  EXPECT_EQ(Sampling({}, 7).options().temperature, 1);
}

TEST(Sampling, TheUsersWordComesBeforeTheModels) {
  const Json model = {
      {"top_k", 20},         {"top_p", 0.8}, {"min_p", 0.1}, {"typical_p", 0.9}, {"repetition_penalty", 1.2},
      {"max_new_tokens", 77}};
  const Sampling its_own = with({}, model);
  EXPECT_EQ(its_own.options().top_k, 20);
  EXPECT_EQ(its_own.options().typical_p, 0.9);
  EXPECT_EQ(its_own.options().repetition_penalty, 1.2);
  EXPECT_EQ(its_own.max_new_tokens(), 77);
  Sampling chosen = with({{"top_k", 5}, {"max_new_tokens", 3}}, model);
  EXPECT_EQ(chosen.options().top_k, 5);
  EXPECT_EQ(chosen.options().top_p, 0.8);
  EXPECT_EQ(chosen.max_new_tokens(), 3);
  EXPECT_TRUE(chosen.set("top_k=default"));
  EXPECT_EQ(chosen.options().top_k, 20);
}

TEST(Sampling, WhatIsNoValueChangesNothing) {
  Sampling sampling = with({});
  const auto refusal = [&](const char* assignments) {
    const Status set = sampling.set(assignments);
    return set ? std::string("taken") : set.error().message;
  };
  EXPECT_THAT(refusal("top_p=0.5 top_k=1.5"), HasSubstr("top_k=\"1.5\" is not a whole number from 0"));
  EXPECT_THAT(refusal("top_p=1.5"), HasSubstr("from 0 to 1"));
  EXPECT_THAT(refusal("temperature=nan"), HasSubstr("temperature"));
  EXPECT_THAT(refusal("temperature"), HasSubstr("temperature=\"\""));
  EXPECT_THAT(refusal("temperatur=1"), HasSubstr("did you mean temperature?"));
  EXPECT_EQ(sampling.options().top_p, 1) << "no part of a wrong line counts";
  EXPECT_EQ(refusal("top_p=0.5  temperature=0.25"), "taken");
  EXPECT_THAT(sampling.summary(), HasSubstr("temperature 0.25, top_p 0.5, seed "));
  EXPECT_THAT(sampling.table(), HasSubstr("top_p               0.5       chosen here"));
}

TEST(Sampling, ASeedIsChosenOrDrawn) {
  Sampling sampling({}, 7);
  EXPECT_EQ(sampling.options().seed, 7u);
  sampling.set_seed(18446744073709551615U);
  EXPECT_EQ(sampling.options().seed, 18446744073709551615U);
  sampling.draw_seed();
  EXPECT_NE(sampling.options().seed, 18446744073709551615U);
  EXPECT_GT(sampling.options().temperature, 0) << "who asks for another seed wants another answer";
}

}  // namespace
}  // namespace bitctl
