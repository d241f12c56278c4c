#include "checkpoint/retention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "checkpoint/catalog.h"

namespace bitctl {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<RetentionEntry> valid(std::initializer_list<uint64_t> steps) {
  std::vector<RetentionEntry> entries;
  for (const uint64_t step : steps) entries.push_back({step, true, std::nullopt, false});
  return entries;
}

TEST(Retention, KeepsTheLastN) {
  EXPECT_THAT(steps_to_delete(valid({10, 20, 30, 40, 50}), {.keep_last = 2}, {}), ElementsAre(10, 20, 30));
  EXPECT_THAT(steps_to_delete(valid({50, 10, 40, 30, 20}), {.keep_last = 2}, {}), ElementsAre(10, 20, 30))
      << "order does not matter";
  EXPECT_THAT(steps_to_delete(valid({10}), {.keep_last = 3}, {}), IsEmpty());
  EXPECT_THAT(steps_to_delete(valid({10, 20}), {.keep_last = 0}, {}), ElementsAre(10))
      << "the newest always stays";
}

TEST(Retention, StepsAreNumbersNotText) {
  EXPECT_THAT(steps_to_delete(valid({9, 10, 100}), {.keep_last = 1}, {}), ElementsAre(9, 10));
}

TEST(Retention, ABrokenNewerOneDoesNotCount) {
  auto entries = valid({10, 20});
  entries.push_back({30, false, std::nullopt, false});
  EXPECT_THAT(steps_to_delete(entries, {.keep_last = 1}, {}), ElementsAre(10));
}

TEST(Retention, KeepsTheBestButNeverANaN) {
  std::vector<RetentionEntry> entries = {{10, true, 0.2, false},
                                         {20, true, 0.1, true},
                                         {30, true, NAN, false},
                                         {40, true, 0.5, false},
                                         {50, true, 0.9, false}};
  const RetentionPolicy policy{.keep_last = 1, .keep_best = BestMetric{"loss", true, 1}};
  EXPECT_THAT(steps_to_delete(entries, policy, {}), ElementsAre(20, 30, 40));
  const RetentionPolicy highest{.keep_last = 1, .keep_best = BestMetric{"score", false, 2}};
  EXPECT_THAT(steps_to_delete(entries, highest, {}), ElementsAre(10, 20, 30));
}

TEST(Retention, ATieGoesToTheNewer) {
  const std::vector<RetentionEntry> entries = {
      {10, true, 0.5, false}, {20, true, 0.5, false}, {30, true, 0.9, false}};
  EXPECT_THAT(steps_to_delete(entries, {.keep_last = 1, .keep_best = BestMetric{"loss", true, 1}}, {}),
              ElementsAre(10));
}

TEST(Retention, KeepsEveryKthAndWhatIsInUse) {
  EXPECT_THAT(steps_to_delete(valid({10, 20, 30, 40, 50}), {.keep_last = 1, .keep_every = 20}, {30}),
              ElementsAre(10));
}

// Any history, any policy: the newest valid one stays, what is in use stays, what does not verify is not
// touched.
TEST(Retention, NeverDeletesTheLastGoodOne) {
  std::mt19937 random(7);
  const auto upto = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  for (int round = 0; round < 20000; ++round) {
    std::vector<RetentionEntry> entries;
    std::set<uint64_t> in_use;
    std::optional<uint64_t> newest;
    for (int i = upto(8); i >= 0; --i) {
      RetentionEntry e{static_cast<uint64_t>(upto(1000)), upto(4) != 0,
                       upto(2) ? std::optional(upto(10) / 10.0) : std::nullopt, upto(5) == 0};
      if (std::any_of(entries.begin(), entries.end(), [&](const auto& x) { return x.step == e.step; }))
        continue;
      if (e.valid && (!newest || e.step > *newest)) newest = e.step;
      if (upto(6) == 0) in_use.insert(e.step);
      entries.push_back(e);
    }
    RetentionPolicy policy{.keep_last = upto(4), .keep_every = static_cast<uint64_t>(upto(3) * 100)};
    if (upto(2)) policy.keep_best = BestMetric{"m", upto(2) == 0, 1 + upto(3)};
    for (const uint64_t step : steps_to_delete(entries, policy, in_use)) {
      EXPECT_NE(step, newest);
      EXPECT_FALSE(in_use.contains(step));
      const auto entry =
          std::find_if(entries.begin(), entries.end(), [&](const auto& e) { return e.step == step; });
      EXPECT_TRUE(entry->valid);
    }
  }
}

TEST(Catalog, StepFolderNames) {
  EXPECT_EQ(step_folder_name(120), "step-000000120");
  EXPECT_EQ(step_folder_name(12345678901), "step-12345678901");
  EXPECT_EQ(step_of_folder_name("step-000000120"), 120u);
  EXPECT_EQ(step_of_folder_name("step-12345678901"), 12345678901u);
  for (const char* name : {"step-120", "step-", "step-00000012x", "step-0000000120", ".tmp-step-000000120",
                           "step-99999999999999999999999", "xstep-000000120"})
    EXPECT_EQ(step_of_folder_name(name), std::nullopt) << name;
}

}  // namespace
}  // namespace bitctl
