#include "recover/warm_start.h"

#include <gtest/gtest.h>

namespace bitctl {
namespace {

constexpr uint64_t kMiB = 1 << 20;

WarmFacts good() {
  WarmFacts facts;
  facts.own_interpreter = true;
  facts.spare_bytes = 400 * kMiB;
  facts.available_bytes = 1024 * kMiB;
  facts.memory_pressure = 5;
  facts.deaths = 2;
  return facts;
}

TEST(WarmStart, OneIsMadeWhereNothingSpeaksAgainstIt) { EXPECT_EQ(why_no_spare(good()), ""); }

struct Case {
  const char* name;
  void (*spoil)(WarmFacts&);
  const char* reason;
};

class WhyNoSpare : public testing::TestWithParam<Case> {};

TEST_P(WhyNoSpare, Says) {
  WarmFacts facts = good();
  GetParam().spoil(facts);
  EXPECT_EQ(why_no_spare(facts), GetParam().reason);
}

INSTANTIATE_TEST_SUITE_P(
    Table, WhyNoSpare,
    testing::Values(
        Case{"launcher", [](WarmFacts& f) { f.own_interpreter = false; },
             "the command starts the script's Python itself, as launchers and shells do"},
        Case{"isolated", [](WarmFacts& f) { f.objection = "python runs with -I"; }, "python runs with -I"},
        Case{"dies", [](WarmFacts& f) { f.deaths = 3; }, "3 spares have died"},
        Case{"little", [](WarmFacts& f) { f.available_bytes = 1023 * kMiB; },
             "only 1023.0 MiB of memory are available; it takes 1.0 GiB"},
        Case{"large", [](WarmFacts& f) { f.spare_bytes = 513 * kMiB; },
             "only 1.0 GiB of memory are available; it takes 1.0 GiB"},
        Case{"unknown", [](WarmFacts& f) { f.available_bytes = 0; },
             "only 0 B of memory are available; it takes 1.0 GiB"},
        Case{"pressure", [](WarmFacts& f) { f.memory_pressure = 5.1; }, "memory is under pressure (5 %)"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace bitctl
