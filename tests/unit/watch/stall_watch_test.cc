#include "watch/stall_watch.h"

#include <gtest/gtest.h>

namespace bitctl {
namespace {

using namespace std::chrono_literals;
using Kind = StallVerdict::Kind;

class StallWatchTest : public ::testing::Test {
 protected:
  // An attempt that connects and makes `steps` steps of `gap` each.
  void run_steps(StallWatch& watch, int steps, Duration gap) {
    watch.begin_attempt(now_);
    watch.connected(now_);
    more_steps(watch, 1, steps, gap);
  }
  void more_steps(StallWatch& watch, int from, int steps, Duration gap) {
    for (int i = 0; i < steps; ++i) {
      now_ += gap;
      watch.step(static_cast<uint64_t>(from + i), now_);
    }
  }
  Kind after(const StallWatch& watch, Duration silence) { return watch.judge(now_ + silence).kind; }

  Mono now_{1000h};
};

struct Threshold {
  Duration step;
  std::optional<Duration> stall;
  Duration suspected;
  Duration hung;
};

class Thresholds : public StallWatchTest, public ::testing::WithParamInterface<Threshold> {};

TEST_P(Thresholds, AreMetToTheMillisecond) {
  const Threshold& row = GetParam();
  StallWatch watch({true, row.stall});
  run_steps(watch, 20, row.step);
  EXPECT_EQ(after(watch, row.suspected - 1ms), Kind::healthy);
  if (row.suspected < row.hung) {
    EXPECT_EQ(after(watch, row.suspected), Kind::suspected);
    EXPECT_EQ(watch.worsens_at(now_), now_ + row.suspected);
  }
  EXPECT_NE(after(watch, row.hung - 1ms), Kind::hung);
  EXPECT_EQ(after(watch, row.hung), Kind::hung);
  EXPECT_EQ(watch.worsens_at(now_ + row.suspected),
            row.suspected < row.hung ? std::optional(now_ + row.hung) : std::nullopt);
}

INSTANTIATE_TEST_SUITE_P(OfSteps, Thresholds,
                         ::testing::Values(Threshold{50ms, {}, 2s, 60s}, Threshold{1s, {}, 5s, 60s},
                                           Threshold{10s, {}, 50s, 60s}, Threshold{30s, {}, 150s, 150s},
                                           Threshold{50ms, 10s, 2s, 10s}, Threshold{10s, 20s, 20s, 20s}));

TEST_F(StallWatchTest, AFirstStepMayTakeHalfAnHour) {
  StallWatch watch({});
  watch.begin_attempt(now_);
  watch.connected(now_ + 1s);
  now_ += 1s;
  EXPECT_EQ(after(watch, 14min), Kind::healthy);
  EXPECT_EQ(after(watch, 16min), Kind::suspected);
  EXPECT_EQ(after(watch, 30min), Kind::hung);
}

TEST_F(StallWatchTest, TheNextStartIsJudgedByTheFirst) {
  StallWatch watch({});
  watch.begin_attempt(now_);
  watch.connected(now_ + 1s);
  now_ += 41s;
  watch.step(1, now_);
  more_steps(watch, 2, 10, 100ms);
  watch.begin_attempt(now_);
  watch.connected(now_);
  EXPECT_EQ(after(watch, 119s), Kind::suspected);
  EXPECT_EQ(after(watch, 120s), Kind::hung);
}

TEST_F(StallWatchTest, TheFirstResumeIsNotJudgedByAFreshStart) {
  StallWatch watch({});
  run_steps(watch, 10, 100ms);
  for (const Kind after_300s : {Kind::healthy, Kind::hung}) {
    watch.begin_attempt(now_);
    watch.connected(now_);
    watch.resumes();
    EXPECT_EQ(after(watch, 300s), after_300s) << "it may skip the data of a whole night";
    now_ += 100s;
    watch.step(11, now_);
    more_steps(watch, 12, 10, 100ms);
  }
}

TEST_F(StallWatchTest, ALowerStepIsANewCount) {
  StallWatch watch({});
  run_steps(watch, 50, 100ms);
  more_steps(watch, 1, 20, 2s);
  EXPECT_EQ(after(watch, 9s), Kind::healthy) << "and its steps are steps";
  EXPECT_EQ(after(watch, 60s), Kind::hung);
}

TEST_F(StallWatchTest, AStepThatWasMadeUnheardCountsFromWhenItWasMade) {
  StallWatch watch({});
  run_steps(watch, 20, 100ms);
  watch.made(25, now_ + 40ms);
  EXPECT_EQ(after(watch, 2039ms), Kind::healthy);
  EXPECT_EQ(after(watch, 2040ms), Kind::suspected) << "no gap was learned from it";
  watch.made(24, now_ + 1s);
  EXPECT_EQ(after(watch, 2040ms), Kind::suspected);
}

TEST_F(StallWatchTest, OneThatFallsSilentIsLeftAlone) {
  StallWatch watch({});
  run_steps(watch, 20, 100ms);
  watch.disconnected(now_);
  EXPECT_EQ(after(watch, 100h), Kind::healthy);
}

TEST_F(StallWatchTest, FourStepsAreNoHistory) {
  StallWatch watch({});
  run_steps(watch, 5, 10ms);  // four gaps between steps
  EXPECT_EQ(watch.phase(), Phase::init);
  EXPECT_EQ(after(watch, 5min), Kind::healthy);
  more_steps(watch, 6, 1, 10ms);
  EXPECT_EQ(watch.phase(), Phase::train);
  EXPECT_EQ(after(watch, 2s), Kind::suspected);
}

// The bad twin: a phase that survives its attempt kills, or shields, the next one.
TEST_F(StallWatchTest, APhaseDoesNotOutliveItsAttempt) {
  StallWatch watch({});
  run_steps(watch, 10, 100ms);
  watch.enter(Phase::busy, std::nullopt, now_);
  EXPECT_EQ(after(watch, 10h), Kind::healthy);
  watch.begin_attempt(now_);
  watch.connected(now_);
  EXPECT_EQ(watch.phase(), Phase::init);
  EXPECT_EQ(after(watch, 10h), Kind::hung);
}

TEST_F(StallWatchTest, OneRarePauseIsForgivenAndLearned) {
  StallWatch watch({});
  run_steps(watch, 200, 100ms);
  EXPECT_EQ(after(watch, 30s), Kind::suspected);
  now_ += 30s;
  watch.step(201, now_);
  more_steps(watch, 202, 10, 100ms);
  EXPECT_EQ(after(watch, 89s), Kind::suspected) << "3 x the longest gap is 90 s";
  EXPECT_EQ(after(watch, 90s), Kind::hung);
  EXPECT_EQ(after(watch, 3s), Kind::suspected) << "one outlier is not the p99";
}

TEST_F(StallWatchTest, ReportsOfTheSameStepAreNoProgress) {
  StallWatch watch({});
  run_steps(watch, 10, 100ms);
  for (int i = 0; i < 100; ++i) watch.step(10, now_ + i * 1s);
  EXPECT_EQ(after(watch, 60s), Kind::hung);
}

TEST_F(StallWatchTest, WhileEvaluatingTheyAre) {
  StallWatch watch({});
  run_steps(watch, 10, 100ms);
  watch.enter(Phase::eval, std::nullopt, now_);
  EXPECT_EQ(after(watch, 14min), Kind::healthy) << "nobody knows yet how long that takes";
  watch.enter(Phase::train, std::nullopt, now_);
  watch.enter(Phase::eval, std::nullopt, now_);
  for (int i = 0; i < 100; ++i) watch.step(10, now_ += 1s);
  EXPECT_EQ(after(watch, 29s), Kind::healthy);
  EXPECT_EQ(after(watch, 60s), Kind::hung);
}

TEST_F(StallWatchTest, WorkMayTakeAsLongAsItSays) {
  StallWatch watch({});
  run_steps(watch, 10, 100ms);
  watch.enter(Phase::busy, 10min, now_);
  EXPECT_EQ(after(watch, 10min - 1ms), Kind::healthy);
  EXPECT_EQ(after(watch, 10min), Kind::hung);
  now_ += 1min;
  watch.enter(Phase::train, std::nullopt, now_);
  EXPECT_EQ(after(watch, 2s), Kind::suspected) << "back at work, the old history counts";
}

TEST_F(StallWatchTest, AScriptThatReportsNothingIsJudgedOnlyByADeclaredStall) {
  StallWatch automatic({});
  automatic.begin_attempt(now_);
  EXPECT_EQ(after(automatic, 100h), Kind::healthy);
  EXPECT_EQ(automatic.worsens_at(now_), std::nullopt);
  StallWatch declared({true, 10s});
  declared.begin_attempt(now_);
  EXPECT_EQ(after(declared, 9s), Kind::suspected);
  EXPECT_EQ(after(declared, 10s), Kind::hung);
  declared.sign(now_ + 5s);
  EXPECT_EQ(after(declared, 14s), Kind::suspected);
}

TEST_F(StallWatchTest, ADeclaredStallDoesNotCutAStart) {
  StallWatch watch({true, 10s});
  watch.begin_attempt(now_);
  watch.connected(now_);
  EXPECT_EQ(after(watch, 5min), Kind::healthy);
}

TEST_F(StallWatchTest, LostTimeIsExcused) {
  StallWatch watch({});
  run_steps(watch, 10, 100ms);
  watch.excuse(1h);
  EXPECT_EQ(after(watch, 1h + 1s), Kind::healthy);
  EXPECT_EQ(after(watch, 1h + 60s), Kind::hung);
}

TEST_F(StallWatchTest, AfterTheLastStepThereIsTimeAndAStepLeadsBack) {
  StallWatch watch({true, 10s});
  run_steps(watch, 10, 100ms);
  watch.ends(StallWatch::kFirstTime, now_);
  watch.disconnected(now_);
  EXPECT_EQ(after(watch, 29min), Kind::healthy);
  EXPECT_EQ(after(watch, 30min), Kind::hung);
  more_steps(watch, 11, 1, 100ms);
  EXPECT_EQ(after(watch, 10s), Kind::hung) << "it trains on after finish()";
  watch.ends(std::nullopt, now_);
  EXPECT_EQ(after(watch, 100h), Kind::healthy) << "the disk decides";
}

TEST_F(StallWatchTest, OffIsOff) {
  StallWatch watch({false, {}});
  run_steps(watch, 10, 100ms);
  EXPECT_EQ(after(watch, 1000h), Kind::healthy);
}

TEST(PhaseNames, ThereAndBack) {
  for (const Phase phase : {Phase::init, Phase::train, Phase::eval, Phase::checkpoint, Phase::busy})
    EXPECT_EQ(phase_from(name_of(phase)), phase);
  EXPECT_EQ(phase_from("lunch"), std::nullopt);
}

}  // namespace
}  // namespace bitctl
