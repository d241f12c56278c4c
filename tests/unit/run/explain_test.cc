#include "run/explain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/clock.h"
#include "run/events.h"

namespace bitctl {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

constexpr uint64_t kGiB = uint64_t{1} << 30;

struct Row {
  const char* kind;
  int attempt;
  Json fields = Json::object();
};

Explanation explain_rows(const std::vector<Row>& rows, RunContext around) {
  Story story;
  History history;
  for (const Row& given : rows) {
    Json row = event_row(given.kind, given.attempt, Wall(std::chrono::seconds(1'800'000'000)));
    row.update(given.fields);
    story.apply(row);
    history.apply(row);
  }
  around.id = "demo-1";
  around.program = "/venv/bin/python";
  around.workdir = "/work";
  around.log = "logs/attempt-2.log";
  return explain(story, history, around);
}

// A run that bitctl gave up after an attempt that ended as `end` says.
Explanation failed_with(std::vector<Row> end, const std::string& reason, int code = 1,
                        RunContext around = {}) {
  std::vector<Row> rows = {{"supervising", 0, {{"pid", 1}}}, {"spawned", 1}, {"progress", 1, {{"step", 42}}}};
  rows.insert(rows.end(), end.begin(), end.end());
  rows.push_back({"failed", 1, {{"reason", reason}, {"exit_code", code}}});
  around.state = "failed";
  return explain_rows(rows, around);
}

Row killed(const char* signal, Json more = Json::object()) {
  more["signal"] = signal;
  return {"exited", 1, more};
}

Row error(const std::string& type, const std::string& text) {
  return {"error", 1, {{"exception", text}, {"exception_type", type}, {"frame", "train.py:31 in main"}}};
}

TEST(Explain, ARollBackThatWasGivenUpIsTheLossesFaultAndNotTheKills) {
  const Explanation told = failed_with({killed("SIGKILL"), {"rolled_back", 1, {{"from", 43}, {"step", 40}}}},
                                       "the loss was not finite at step 43 again, though it was rolled back");
  EXPECT_EQ(told.what, "attempt 1 had a loss that was not finite at step 43");
  EXPECT_THAT(told.next, Contains(HasSubstr("learning rate")));
  EXPECT_THAT(told.next, Contains(HasSubstr("data=")));
  EXPECT_THAT(told.next, Not(Contains(HasSubstr("whoever sent it"))));
}

TEST(Explain, WhereNothingFailedItSaysSo) {
  const Explanation running =
      explain_rows({{"supervising", 0}, {"spawned", 1}, {"progress", 1, {{"step", 7}, {"total_steps", 9}}}},
                   {.state = "running"});
  EXPECT_EQ(running.what, "nothing failed; step 7/9");
  EXPECT_FALSE(running.failure);
  const Explanation stopped = explain_rows({{"spawned", 1},
                                            {"stop_requested", 1, {{"by", "SIGINT"}, {"now", true}}},
                                            killed("SIGKILL"),
                                            {"stopped", 1, {{"step", 7}, {"resumable", true}}}},
                                           {.state = "stopped"});
  EXPECT_EQ(stopped.what, "nothing failed; stopped at step 7 (resumable)") << "that kill was wanted";
}

TEST(Explain, AnEndThatNobodyAskedForIsNamed) {
  const Explanation out = explain_rows(
      {{"spawned", 1}, {"exited", 1, {{"code", 0}}}, {"stopped", 1, {{"step", 7}, {"resumable", true}}}},
      {.state = "stopped"});
  EXPECT_EQ(out.what, "the script ended by itself, short of its end: stopped at step 7 (resumable)");
}

// What ended the attempt, and what the answer must hold.
struct Case {
  const char* name;
  std::vector<Row> end;
  std::string reason;
  std::string what;
  std::string first_advice;
};

class Failures : public testing::TestWithParam<Case> {};

TEST_P(Failures, AreTold) {
  const Case& c = GetParam();
  const Explanation out = failed_with(c.end, c.reason);
  EXPECT_THAT(out.what, HasSubstr(c.what));
  ASSERT_FALSE(out.next.empty());
  EXPECT_THAT(out.next.front(), HasSubstr(c.first_advice));
  EXPECT_THAT(out.next.back(), HasSubstr("bitctl resume demo-1"));
  ASSERT_TRUE(out.failure);
  EXPECT_EQ(out.failure->step, 42U);
  EXPECT_EQ(out.log, "logs/attempt-2.log");
}

INSTANTIATE_TEST_SUITE_P(
    Table, Failures,
    testing::Values(
        Case{"killed", {killed("SIGKILL")}, "", "attempt 1 was killed by SIGKILL at step 42", "left no word"},
        Case{"killed_far_from_the_limit",
             {killed("SIGKILL", {{"memory_peak", 5 * kGiB}, {"memory_limit", 10 * kGiB}, {"oom_kills", 0}})},
             "",
             "was killed by SIGKILL at step 42",
             "left no word"},
        Case{"killed_at_the_limit",
             {killed("SIGKILL", {{"memory_peak", 9 * kGiB}, {"memory_limit", 10 * kGiB}})},
             "",
             "ran out of memory at step 42",
             "it took 9.0 GiB at its peak, of 10.0 GiB"},
        Case{"oom_kill",
             {killed("SIGKILL", {{"memory_peak", 5 * kGiB}, {"oom_kills", 1}})},
             "",
             "ran out of memory at step 42",
             "a smaller batch"},
        Case{"segfault", {killed("SIGSEGV")}, "", "was killed by SIGSEGV", "PYTHONFAULTHANDLER"},
        Case{"shared_memory", {killed("SIGBUS")}, "", "was killed by SIGBUS", "/dev/shm"},
        Case{"scheduler", {killed("SIGTERM")}, "", "was killed by SIGTERM", "a scheduler perhaps"},
        Case{"exception",
             {error("ValueError", "ValueError: no loss"), {"exited", 1, {{"code", 1}}}},
             "",
             "ended with exit code 1 at step 42: ValueError: no loss",
             "bitctl logs demo-1"},
        Case{"cuda",
             {error("OutOfMemoryError", "torch.OutOfMemoryError: CUDA out of memory."),
              {"exited", 1, {{"code", 1}}}},
             "",
             "CUDA out of memory",
             "a smaller batch"},
        Case{"module",
             {error("ModuleNotFoundError", "ModuleNotFoundError: No module named 'datasets.arrow'"),
              {"exited", 1, {{"code", 1}}}},
             "",
             "No module named",
             "/venv/bin/python -m pip install datasets`"},
        Case{"file",
             {error("FileNotFoundError", "FileNotFoundError: [Errno 2] 'a.txt'"),
              {"exited", 1, {{"code", 1}}}},
             "",
             "a.txt",
             "relative paths begin in /work"},
        Case{"disk",
             {error("OSError", "OSError: [Errno 28] No space left on device"), {"exited", 1, {{"code", 1}}}},
             "",
             "No space left",
             "bitctl prune"},
        Case{"nan",
             {{"violation", 1, {{"reason", "loss is NaN at step 42"}}}, killed("SIGKILL")},
             "loss is NaN at step 42",
             "was ended by bitctl: loss is NaN at step 42",
             "a lower learning rate"},
        Case{"starts_over",
             {{"violation", 1, {{"reason", "the script starts over: …"}}}, killed("SIGKILL")},
             "",
             "the script starts over",
             "start = run.restore"},
        Case{"does_not_fit",
             {{"violation", 1, {{"reason", "the checkpoint of step 5 does not fit this script: …"}}}},
             "",
             "does not fit",
             "the shape that the checkpoint has"},
        Case{"hang",
             {{"hang", 1, {{"phase", "train"}, {"silent", 75.0}, {"limit", 60.0}, {"reason", "silent"}}},
              {"stacks", 1, {{"pid", 4}, {"text", "…"}}},
              killed("SIGKILL")},
             "",
             "attempt 1 hung: nothing was heard of it for 1m15s (phase train)",
             "events.jsonl (kind stacks)"},
        Case{"not_found",
             {{"spawn_failed", 1, {{"reason", "program not found: x"}}}},
             "",
             "could not be started: program not found: x",
             "PATH"},
        Case{"not_executable",
             {{"spawn_failed", 1, {{"reason", "cannot execute x: no permission"}}}},
             "",
             "could not be started",
             "chmod +x"},
        Case{"usage", {{"exited", 1, {{"code", 2}}}}, "", "exit code 2", "run.args"},
        Case{"disk_full_of_checkpoints",
             {{"persist_failed", 1, {{"step", 40}, {"reason", "no space"}, {"errno", 28}}},
              {"exited", 1, {{"code", 1}}}},
             "",
             "exit code 1",
             "the disk is full"}),
    [](const auto& info) { return info.param.name; });

TEST(Explain, ADiskThatHasRoomAgainIsNoReason) {
  const Explanation out =
      failed_with({{"persist_failed", 1, {{"step", 40}, {"reason", "no space"}, {"errno", 28}}},
                   {"committed", 1, {{"step", 40}}},
                   {"exited", 1, {{"code", 1}}}},
                  "");
  EXPECT_THAT(out.next, Not(Contains(HasSubstr("the disk is full"))));
  EXPECT_EQ(out.next.back(), "`bitctl resume demo-1` goes on from step 40");
}

TEST(Explain, WhatBitctlDidAndWhyItGaveUp) {
  const Explanation out = explain_rows(
      {{"supervising", 0},
       {"spawned", 1},
       {"progress", 1, {{"step", 3}}},
       error("ValueError", "ValueError: bad shape (3, 4)"),
       {"exited", 1, {{"code", 1}}},
       {"waiting", 1, {{"reason", ""}, {"delay", 0}, {"next", 1}, {"budget", 3}}},
       {"spawned", 2},
       {"resumed", 2, {{"step", 2}, {"source", "memory"}}},
       {"progress", 2, {{"step", 3}}},
       {"error",
        2,
        {{"exception", "ValueError: bad shape (3, 4)"},
         {"exception_type", "ValueError"},
         {"frame", "t.py:1"}}},
       {"exited", 2, {{"code", 1}}},
       {"failed",
        2,
        {{"reason",
          "exit code 1 at step 3: ValueError: bad shape (3, 4) (the same failure twice at the same step)"},
         {"exit_code", 1}}}},
      {.state = "failed"});
  EXPECT_EQ(out.failure->attempt, 2);
  EXPECT_THAT(out.did,
              testing::ElementsAre("restarted it once, the last time from step 2 (memory)",
                                   "gave up with exit code 1: the same failure twice at the same step"));
  EXPECT_THAT(out.next, Contains("it fails in the same way each time: look at t.py:1"));
}

TEST(Explain, MoreCheckpointsAreNoHelpBeforeTheFirstStep) {
  const std::string reason = "exit code 1 (3 attempts without a new checkpoint)";
  const std::vector<Row> begun = {{"spawned", 1}, {"progress", 1, {{"step", 3}}}};
  for (const bool at_a_step : {true, false}) {
    std::vector<Row> rows = at_a_step ? begun : std::vector<Row>{{"spawned", 1}};
    rows.push_back({"exited", 1, {{"code", 1}}});
    rows.push_back({"failed", 1, {{"reason", reason}, {"exit_code", 1}}});
    const auto next = explain_rows(rows, {.state = "failed"}).next;
    EXPECT_EQ(
        std::any_of(next.begin(), next.end(),
                    [](const std::string& text) { return text.find("checkpoints.every") != text.npos; }),
        at_a_step);
  }
}

TEST(Explain, AReasonThatSaysNoMoreIsNotSaidTwice) {
  const Explanation out =
      failed_with({error("ValueError", "ValueError: bad shape (3, 4)"), {"exited", 1, {{"code", 1}}}},
                  "exit code 1 at step 42: ValueError: bad shape (3, 4)");
  EXPECT_THAT(out.did, testing::ElementsAre("gave up with exit code 1"));
}

TEST(Explain, AnAttemptThatFailedOnTheWayOfARunThatGoesOn) {
  const Explanation out =
      explain_rows({{"spawned", 1},
                    {"progress", 1, {{"step", 42}}},
                    killed("SIGKILL"),
                    {"waiting", 1, {{"reason", ""}, {"delay", 0}, {"next", 1}, {"budget", 3}}},
                    {"spawned", 2},
                    {"resumed", 2, {{"step", 40}, {"source", "memory"}}},
                    {"progress", 2, {{"step", 50}}}},
                   {.state = "running"});
  EXPECT_EQ(out.what, "attempt 1 was killed by SIGKILL at step 42");
  EXPECT_THAT(out.did, testing::ElementsAre("restarted it once, the last time from step 40 (memory)",
                                            "now it is running: step 50"));
  EXPECT_TRUE(out.next.empty());
}

TEST(Explain, TheEndOfBitctlItself) {
  const std::vector<Row> rows = {
      {"supervising", 0}, {"spawned", 1}, {"progress", 1, {{"step", 42}}}, {"committed", 1, {{"step", 40}}}};
  EXPECT_THAT(explain_rows(rows, {.state = "dead"}).what, HasSubstr("bitctl was killed at step 42"));
  EXPECT_THAT(explain_rows(rows, {.state = "dead", .rebooted = true}).what,
              HasSubstr("the machine went down"));
  EXPECT_THAT(explain_rows(rows, {.state = "saving"}).what, HasSubstr("its writer still saves"));
  std::vector<Row> told = rows;
  told.push_back({"failed", 1, {{"reason", "bitctl itself was killed at step 42"}}});
  const Explanation out = explain_rows(told, {.state = "failed"});
  EXPECT_EQ(out.what, "bitctl itself was killed at step 42");
  EXPECT_THAT(out.next, testing::ElementsAre("`bitctl resume demo-1` goes on from step 40"));
}

TEST(Explain, AScriptThatTellsBitctlNothingIsReadFromItsLog) {
  RunContext around;
  around.log_tail =
      "Traceback (most recent call last):\n  File \"/u/bare.py\", line 3, in <module>\nKeyError: 'x'\n";
  const Explanation out = failed_with({{"exited", 1, {{"code", 1}}}}, "", 1, around);
  EXPECT_EQ(out.exception, "KeyError: 'x'");
  EXPECT_EQ(out.frame, "/u/bare.py:3 in <module>");
  around.log_tail = "Traceback (most recent call last):\n  File \"x\", line 3, in f\nKeyError: 'old'\n";
  EXPECT_EQ(failed_with({error("ValueError", "ValueError: new"), {"exited", 1, {{"code", 1}}}}, "", 1, around)
                .exception,
            "ValueError: new")
      << "its own words go before its log";
}

}  // namespace
}  // namespace bitctl
