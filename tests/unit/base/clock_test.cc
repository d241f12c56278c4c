#include "base/clock.h"

#include <gtest/gtest.h>

#include <limits>

namespace bitctl {
namespace {

using namespace std::chrono_literals;

TEST(Clock, SecondsThereAndBack) {
  EXPECT_EQ(as_seconds(1500ms), 1.5);
  EXPECT_EQ(from_seconds(1.5), 1500ms);
  EXPECT_EQ(from_seconds(-0.25), -250ms);
}

TEST(Clock, NumbersThatNoDurationCanHold) {
  const Duration century = std::chrono::hours(24 * 365 * 100);
  EXPECT_EQ(from_seconds(1e300), century);
  EXPECT_EQ(from_seconds(-std::numeric_limits<double>::infinity()), -century);
  EXPECT_EQ(from_seconds(std::numeric_limits<double>::quiet_NaN()), Duration::zero());
}

TEST(Clock, UnixTimeIsRoundedDown) {
  EXPECT_EQ(unix_seconds(Wall(1999ms)), 1);
  EXPECT_EQ(unix_seconds(Wall(-1ms)), -1);
  EXPECT_EQ(unix_seconds_precise(Wall(1999999us)), 1.999);
}

}  // namespace
}  // namespace bitctl
