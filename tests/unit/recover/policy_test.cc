#include "recover/policy.h"

#include <gtest/gtest.h>

namespace bitctl {
namespace {

using Kind = Decision::Kind;
using std::chrono::seconds;

AttemptRecord killed_at(uint64_t step, std::optional<uint64_t> snapshot) {
  AttemptRecord a;
  a.signalled = true;
  a.code = 9;
  a.reports_progress = true;
  a.last_step = step;
  a.snapshot = snapshot;
  return a;
}

AttemptRecord exited(int code, uint64_t step = 0, bool reports = true) {
  AttemptRecord a;
  a.code = code;
  a.last_step = step;
  a.reports_progress = reports;
  return a;
}

// Each attempt begins with what the one before it left.
Decision decide_now(std::vector<AttemptRecord> attempts, RestartRules rules = {},
                    std::optional<uint64_t> first = std::nullopt) {
  for (AttemptRecord& a : attempts) {
    a.snapshot_before = first;
    first = a.snapshot;
  }
  return decide(rules, attempts, 0);
}

TEST(Policy, AKillIsRestartedAtOnceAfterProgress) {
  const Decision d = decide_now({killed_at(42, 40)});
  EXPECT_EQ(d.kind, Kind::restart);
  EXPECT_EQ(d.delay, Duration::zero());
  EXPECT_EQ(d.reason, "killed by SIGKILL at step 42");
}

TEST(Policy, ThreeAttemptsWithoutAHigherSnapshotEndTheRun) {
  std::vector<AttemptRecord> attempts = {killed_at(42, 40), killed_at(43, 40)};
  EXPECT_EQ(decide_now(attempts).kind, Kind::restart);
  attempts.push_back(killed_at(44, 40));
  EXPECT_EQ(decide_now(attempts).kind, Kind::restart);
  attempts.push_back(killed_at(45, 40));
  const Decision d = decide_now(attempts);
  EXPECT_EQ(d.kind, Kind::give_up);
  EXPECT_EQ(d.exit_code, 137);
  EXPECT_EQ(d.reason, "killed by SIGKILL at step 45 (3 attempts without a new checkpoint)");
}

TEST(Policy, ARestartThatWasAskedForComesAtOnceAndDrawsOnNoBudget) {
  AttemptRecord left = exited(75, 42);
  left.snapshot = 40;
  AttemptRecord killed = killed_at(42, 40);
  EXPECT_EQ(decide_now({left}).kind, Kind::stopped) << "control: nobody asked for a restart";
  for (AttemptRecord asked : {left, killed, exited(0, 42), exited(143, 0, false), exited(0, 0, false)}) {
    asked.restart_asked = true;
    RestartRules never;
    never.on_failure = false;
    const Decision d = decide_now({asked}, never);
    EXPECT_EQ(d.kind, Kind::restart);
    EXPECT_EQ(d.delay, Duration::zero());
  }
  killed.restart_asked = true;
  std::vector<AttemptRecord> attempts = {killed_at(42, 40), killed_at(43, 40), killed, killed, killed,
                                         killed_at(44, 40)};
  EXPECT_EQ(decide_now(attempts).kind, Kind::restart) << "two failures without progress, not five";
  attempts.push_back(killed_at(45, 40));
  EXPECT_EQ(decide_now(attempts).kind, Kind::give_up);
}

TEST(Policy, ARestartAskedForOfARunThatIsDoneOrBrokenIsNone) {
  AttemptRecord done = exited(0, 100);
  done.reached_end = done.restart_asked = true;
  EXPECT_EQ(decide_now({done}).kind, Kind::done);
  AttemptRecord broken = exited(125, 3);
  broken.violation = "the script starts over";
  broken.restart_asked = true;
  EXPECT_EQ(decide_now({broken}).kind, Kind::give_up);
}

TEST(Policy, WhatStoodBeforeAResumeIsNoProgress) {
  const std::vector<AttemptRecord> attempts(3, killed_at(42, 40));
  EXPECT_EQ(decide_now(attempts, {}, 40).kind, Kind::give_up);
  EXPECT_EQ(decide_now(attempts, {}, 39).kind, Kind::restart);
}

TEST(Policy, AHigherSnapshotGivesTheBudgetBack) {
  const std::vector<AttemptRecord> attempts = {killed_at(1, 0), killed_at(2, 0), killed_at(9, 8),
                                               killed_at(9, 8), killed_at(10, 8)};
  EXPECT_EQ(decide_now(attempts).kind, Kind::restart);
}

TEST(Policy, BackOffDoublesUpToItsLimit) {
  RestartRules rules;
  rules.max = 100;
  std::vector<AttemptRecord> attempts;
  std::vector<Duration> delays;
  for (int i = 0; i < 9; ++i) {
    attempts.push_back(killed_at(static_cast<uint64_t>(i), std::nullopt));
    delays.push_back(decide(rules, attempts, 0).delay);
  }
  EXPECT_EQ(delays, (std::vector<Duration>{seconds(0), seconds(1), seconds(2), seconds(4), seconds(8),
                                           seconds(16), seconds(32), seconds(60), seconds(60)}));
  EXPECT_GT(decide(rules, attempts, 0.9).delay, seconds(60));
}

TEST(Policy, TheSameFailureAtTheSameStepTwiceEndsTheRun) {
  auto a = exited(1, 7);
  a.error_key = "abc";
  a.error = "ValueError: no";
  auto b = a;
  EXPECT_EQ(decide_now({a, b}).kind, Kind::give_up);
  EXPECT_EQ(decide_now({a, b}).exit_code, 1);
  b.error_key = "other";
  EXPECT_EQ(decide_now({a, b}).kind, Kind::restart);
  b = a;
  b.last_step = 8;
  EXPECT_EQ(decide_now({a, b}).kind, Kind::restart);
}

TEST(Policy, OneThatConnectedAndMadeNoStepFailedAtAKnownStep) {
  auto a = exited(1, 0, false);
  a.error_key = "abc";
  EXPECT_EQ(decide_now({a, a}).kind, Kind::restart) << "nobody knows how far it came";
  a.connected = true;
  EXPECT_EQ(decide_now({a, a}).kind, Kind::give_up);
}

TEST(Policy, OutOfMemoryIsRetriedOnceAndOnlyBelievedOnEvidence) {
  auto a = killed_at(5, std::nullopt);
  a.memory.peak = 950;
  a.memory.limit = 1000;
  EXPECT_EQ(decide_now({a}).kind, Kind::restart);
  EXPECT_EQ(decide_now({a}).reason,
            "ran out of memory and was killed (950 B at its peak, of 1000 B) at step 5");
  EXPECT_EQ(decide_now({a, a}).kind, Kind::give_up);
  EXPECT_EQ(decide_now({a, a}).exit_code, 137);
  auto counted = killed_at(5, std::nullopt);
  counted.memory.oom_kills = 1;
  EXPECT_EQ(decide_now({a, counted}).kind, Kind::give_up);
  auto neighbours = exited(1, 5);
  neighbours.memory.oom_kills = 1;
  EXPECT_EQ(decide_now({counted, neighbours}).reason, "exit code 1 at step 5") << "somebody else was killed";
  auto little = a;
  little.memory.peak = 890;
  EXPECT_EQ(decide_now({a, little}).kind, Kind::restart) << "any other SIGKILL";
  EXPECT_EQ(decide_now({little}).reason, "killed by SIGKILL at step 5");
  auto leak = a;
  leak.snapshot = 5;
  EXPECT_EQ(decide_now({a, leak}).kind, Kind::restart) << "it got on";
}

TEST(Policy, ARollBackGoesOnUnlessNothingIsLeftOrItHappensAgain) {
  auto a = killed_at(9, 5);
  a.non_finite_step = 9;
  EXPECT_EQ(decide_now({killed_at(8, 8), a}).kind, Kind::restart);
  EXPECT_EQ(decide_now({a}).reason, "the loss was not finite at step 9");
  EXPECT_EQ(decide_now({a, a}).kind, Kind::give_up) << "the same step again";
  EXPECT_EQ(decide_now({a, a}).exit_code, 125);
  auto later = a;
  later.non_finite_step = 30;
  EXPECT_EQ(decide_now({a, later}).kind, Kind::restart);
  auto none = a;
  none.snapshot.reset();
  EXPECT_EQ(decide_now({none}).kind, Kind::give_up);
  auto stopped = a;
  stopped.stop_asked = true;
  EXPECT_EQ(decide_now({stopped}).kind, Kind::stopped);
  auto over = a;
  over.signalled = false;
  over.code = 0;
  over.reached_end = true;
  EXPECT_EQ(decide_now({over}).kind, Kind::restart) << "an end with NaN is no end";
}

TEST(Policy, SignalsAtTheSameStepDrawOnTheProgressBudgetAlone) {
  EXPECT_EQ(decide_now({killed_at(7, 5), killed_at(7, 5)}).kind, Kind::restart);
}

TEST(Policy, ExitZeroIsDoneOnlyAtTheEnd) {
  auto a = exited(0, 100);
  EXPECT_EQ(decide_now({a}).kind, Kind::stopped);
  EXPECT_EQ(decide_now({a}).exit_code, 75);
  a.reached_end = true;
  EXPECT_EQ(decide_now({a}).kind, Kind::done);
  EXPECT_EQ(decide_now({exited(0, 0, false)}).kind, Kind::done) << "no progress source: exit 0 is done";
}

TEST(Policy, AStopThatWasAskedForIsAStopHoweverItEnds) {
  for (auto a : {exited(0, 5), exited(75, 5), exited(1, 5), killed_at(5, 5)}) {
    a.stop_asked = true;
    EXPECT_EQ(decide_now({a}).kind, Kind::stopped);
    EXPECT_EQ(decide_now({a}).exit_code, 75);
  }
}

TEST(Policy, AStopBesideTheEndIsDone) {
  auto a = exited(0, 100);
  a.stop_asked = a.reached_end = true;
  EXPECT_EQ(decide_now({a}).kind, Kind::done);
}

struct Ending {
  int code;
  bool signalled;
  int exit_code;
};

TEST(Policy, ExitCodesPassThrough) {
  RestartRules never;
  never.on_failure = false;
  for (const Ending& e :
       {Ending{42, false, 42}, Ending{9, true, 137}, Ending{11, true, 139}, Ending{1, false, 1}}) {
    auto a = exited(e.code);
    a.signalled = e.signalled;
    const Decision d = decide_now({a}, never);
    EXPECT_EQ(d.kind, Kind::give_up);
    EXPECT_EQ(d.exit_code, e.exit_code);
  }
  auto hung = killed_at(3, 3);
  hung.hang = true;
  EXPECT_EQ(decide_now({hung}, never).exit_code, 124);
}

TEST(Policy, TheUsersMistakesAreNotTriedAgain) {
  for (const int code : {2, 126, 127})
    EXPECT_EQ(decide_now({exited(code, 0, false)}).kind, Kind::give_up) << code;
  auto a = exited(1);
  for (const char* type : {"ModuleNotFoundError", "SyntaxError", "FileNotFoundError"}) {
    a.error_type = type;
    EXPECT_EQ(decide_now({a}).kind, Kind::give_up) << type;
  }
  a.error_type = "RuntimeError";
  EXPECT_EQ(decide_now({a}).kind, Kind::restart);
}

TEST(Policy, AViolationIsNeverRestarted) {
  auto a = killed_at(1, 40);
  a.violation = "the script starts over";
  const Decision d = decide_now({a});
  EXPECT_EQ(d.kind, Kind::give_up);
  EXPECT_EQ(d.reason, "the script starts over");
  EXPECT_EQ(d.exit_code, 125);
}

}  // namespace
}  // namespace bitctl
