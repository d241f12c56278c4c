#include "pulse/status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace bitctl {
namespace {

constexpr int64_t kNow = 1732800000;
constexpr TrainingState kStates[] = {TrainingState::idle, TrainingState::running, TrainingState::done,
                                     TrainingState::error};

// FROZEN (schemas/README.md): names, their order and their types.
TEST(PulseStatus, HasTheseBytesAndNoOthers) {
  EXPECT_EQ(to_file_bytes({TrainingState::running, 1.5, 3, 0.342, "epoch 2/3, step 150/800", kNow}),
            R"({"status":"running","epoch":1.5,"total_epochs":3.0,"loss":0.342,)"
            R"("message":"epoch 2/3, step 150/800","timestamp":1732800000})"
            "\n");
  EXPECT_EQ(to_file_bytes(idle_status(kNow)), R"({"status":"idle","epoch":0.0,"total_epochs":0.0,"loss":0.0,)"
                                              R"("message":"No training in progress","timestamp":1732800000})"
                                              "\n");
}

TEST(PulseStatus, AMessageIsAlwaysUtf8) {
  EXPECT_THAT(to_file_bytes({.message = "a\xff"}), testing::HasSubstr("\"message\":\"a\xef\xbf\xbd\""));
}

struct ProgressCase {
  double epoch, total, percent;
};

TEST(Progress, IsAPercentageAndNeverNaN) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  constexpr double kHuge = std::numeric_limits<double>::max();
  for (const auto& [epoch, total, percent] : {ProgressCase{0, 3, 0},
                                              {1.5, 3, 50},
                                              {3, 3, 100},
                                              {9, 3, 100},
                                              {-1, 3, 0},
                                              {0, 0, 0},
                                              {5, 0, 0},
                                              {5, -1, 0},
                                              {kNaN, 3, 0},
                                              {3, kNaN, 0},
                                              {kInfinity, 3, 0},
                                              {kInfinity, kInfinity, 0},
                                              {kHuge / 2, kHuge, 50},
                                              {kHuge, 1e-300, 0}})
    EXPECT_EQ(progress_percent({.epoch = epoch, .total_epochs = total}), percent) << epoch << "/" << total;
  EXPECT_NEAR(progress_percent({.epoch = 2.5, .total_epochs = 3}), 83.3, 0.05);
}

TEST(Stale, OnlyARunningStatusThatIsOlderThanSixtySeconds) {
  for (const TrainingState state : kStates) {
    for (const int64_t age : {-3600, -1, 0, 59, 60, 61, 70, 1000000}) {
      const PulseStatus status{.status = state, .timestamp = kNow - age};
      EXPECT_EQ(is_stale(status, kNow), state == TrainingState::running && age > 60)
          << state_name(state) << " " << age;
    }
  }
}

TEST(Stale, NoTimestampOverflows) {
  EXPECT_TRUE(is_stale({.status = TrainingState::running, .timestamp = 0}, kNow));
  EXPECT_TRUE(is_stale({.status = TrainingState::running, .timestamp = INT64_MIN}, kNow));
  EXPECT_FALSE(is_stale({.status = TrainingState::running, .timestamp = INT64_MAX}, kNow));
}

TEST(Stale, ReadsAsAnErrorAndKeepsAllElse) {
  const PulseStatus status{TrainingState::running, 1.5, 3, 0.342, "step 150/800", kNow - 61};
  PulseStatus expected = status;
  expected.status = TrainingState::error;
  expected.message = "Process unresponsive (stale pulse)";
  EXPECT_EQ(as_stale(status), expected);
}

}  // namespace
}  // namespace bitctl
