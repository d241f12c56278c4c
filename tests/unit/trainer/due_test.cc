#include "trainer/due.h"

#include <gtest/gtest.h>

#include <fstream>

namespace bitctl::trainer {
namespace {

TEST(Due, StepsAreTheRunsNotTheAttempts) {
  Due due(Json{{"steps", 10}});
  EXPECT_FALSE(due.is_due(7, 0, 0)) << "resumed at 6";
  EXPECT_TRUE(due.is_due(10, 0, 0));
  EXPECT_TRUE(due.is_due(11, 0, 0)) << "no slot was free";
  due.taken(11, 0, 0);
  EXPECT_FALSE(due.is_due(19, 1000, 0));
  EXPECT_TRUE(due.is_due(20, 1000, 0));
}

TEST(Due, Seconds) {
  Due due(Json{{"seconds", 2.5}});
  EXPECT_FALSE(due.is_due(1, 100, 0));
  EXPECT_FALSE(due.is_due(2, 102, 0));
  EXPECT_TRUE(due.is_due(3, 102.5, 0));
}

// The same table holds python/bitctl/_due.py.
TEST(Due, AutoIsTheRuleOfThePythonPackage) {
  std::ifstream file(BITCTL_SOURCE_DIR "/tests/samples/auto_interval.json");
  const Json rows = Json::parse(file);
  ASSERT_GT(rows.size(), 5u);
  for (const Json& row : rows)
    EXPECT_NEAR(auto_interval(row["stall"], row["persist"], row["time_to_failure"]), row["interval"], 1e-9)
        << row.dump();
}

TEST(Due, AnIntervalIsNewsOnceAndWhenItChanges) {
  Due due(Json{{"auto", true}});
  due.taken(1, 0, 0.05);
  EXPECT_FALSE(due.news(0)) << "nothing is known of the disk yet";
  const auto interval = due.news(0.5);
  ASSERT_TRUE(interval);
  EXPECT_EQ(due.news(0.5), interval) << "until it has been told";
  due.told(*interval);
  EXPECT_FALSE(due.news(0.51));
  EXPECT_TRUE(due.news(50));
  EXPECT_FALSE(Due(Json{{"steps", 5}}).news(0.5));
  EXPECT_FALSE(Due(Json{{"seconds", 5}}).news(0.5));
}

TEST(Due, AutoTakesTheRunsOwnFailures) {
  Due rare(Json{{"auto", true}, {"ran_seconds", 36000}, {"failures", 0}});
  Due often(Json{{"auto", true}, {"ran_seconds", 3600}, {"failures", 100}});
  for (Due* due : {&rare, &often}) {
    EXPECT_FALSE(due->is_due(1, 0, 0.5));
    due->taken(1, 0, 0.1);
  }
  EXPECT_FALSE(rare.is_due(2, 60, 0.5));
  EXPECT_TRUE(often.is_due(2, 60, 0.5));
}

}  // namespace
}  // namespace bitctl::trainer
