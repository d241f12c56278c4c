#include "watch/progress_rows.h"

#include <gtest/gtest.h>

namespace bitctl {
namespace {

using std::chrono::milliseconds;

Progress at(uint64_t step, std::optional<double> loss) {
  Progress p;
  p.step = step;
  p.loss = loss;
  return p;
}

TEST(ProgressRows, TheFirstReportIsARowAtOnce) {
  ProgressRows rows;
  EXPECT_TRUE(rows.add(at(1, 2.5), Mono{}));
  const Json row = rows.take(Mono{});
  EXPECT_EQ(row.at("step"), 1);
  EXPECT_EQ(row.at("loss").at("last"), 2.5);
  EXPECT_FALSE(row.contains("epoch"));
}

TEST(ProgressRows, LaterOnesAreGatheredForASecond) {
  ProgressRows rows;
  rows.add(at(1, 9.0), Mono{});
  rows.take(Mono{});
  EXPECT_FALSE(rows.add(at(2, 3.0), Mono{} + milliseconds(10)));
  EXPECT_FALSE(rows.add(at(3, 1.0), Mono{} + milliseconds(500)));
  EXPECT_EQ(rows.due_at(), Mono{} + milliseconds(1000));
  EXPECT_TRUE(rows.add(at(4, 2.0), Mono{} + milliseconds(1000)));
  const Json row = rows.take(Mono{} + milliseconds(1000));
  EXPECT_EQ(row.at("step"), 4);
  EXPECT_EQ(row.at("loss"), (Json{{"last", 2.0}, {"min", 1.0}, {"mean", 2.0}, {"max", 3.0}, {"n", 3}}));
  EXPECT_FALSE(rows.pending());
  EXPECT_EQ(rows.due_at(), std::nullopt);
}

TEST(ProgressRows, ANonFiniteLossIsNamedWithItsStepAndKeptOutOfTheFigures) {
  ProgressRows rows;
  rows.add(at(1, 1.0), Mono{});
  Progress bad = at(2, std::nullopt);
  bad.non_finite = "NaN";
  rows.add(bad, Mono{});
  rows.add(at(3, 3.0), Mono{});
  const Json row = rows.take(Mono{});
  EXPECT_EQ(row.at("non_finite_loss"), "NaN");
  EXPECT_EQ(row.at("non_finite_step"), 2);
  EXPECT_EQ(row.at("loss").at("mean"), 2.0);
}

}  // namespace
}  // namespace bitctl
