#include "run/history.h"

#include <gtest/gtest.h>

#include "run/describe.h"
#include "run/events.h"
#include "temporary_folder.h"

namespace bitctl {
namespace {

History fold(std::initializer_list<Json> rows) {
  History history;
  double t = 1000;
  for (Json row : rows) {
    if (!row.contains("t")) row["t"] = t += 1;
    history.apply(row);
  }
  return history;
}

TEST(History, BeforeTheSpawnPulseSaysStarting) {
  const History h = fold({{{"kind", "supervising"}, {"pid", 1}, {"attempt", 0}}});
  EXPECT_EQ(h.pulse.status, TrainingState::running);
  EXPECT_EQ(h.pulse.message, "Starting…");
  EXPECT_EQ(h.pulse.timestamp, 1001);
}

TEST(History, StepsAloneMakeOneEpoch) {
  const History h = fold({{{"kind", "spawned"}, {"attempt", 1}},
                          {{"kind", "progress"},
                           {"attempt", 1},
                           {"step", 30},
                           {"total_steps", 120},
                           {"loss", {{"last", 0.5}}}}});
  EXPECT_EQ(h.pulse.epoch, 0.25);
  EXPECT_EQ(h.pulse.total_epochs, 1);
  EXPECT_EQ(h.pulse.loss, 0.5);
  EXPECT_EQ(h.pulse.message, "step 30/120");
}

TEST(History, EpochsAreTakenAsReported) {
  const History h =
      fold({{{"kind", "progress"}, {"step", 30}, {"total_steps", 120}, {"epoch", 1.5}, {"total_epochs", 3}}});
  EXPECT_EQ(h.pulse.epoch, 1.5);
  EXPECT_EQ(h.pulse.total_epochs, 3);
}

TEST(History, WhatTheSpareIsSaidToBeLast) {
  const Json off = {{"kind", "spare"}, {"state", "off"}, {"reason", "restart.warm is off"}};
  EXPECT_EQ(fold({{{"kind", "spare"}, {"state", "ready"}, {"seconds", 2.5}}}).spare, "ready");
  EXPECT_EQ(fold({off}).spare, "off: restart.warm is off");
  EXPECT_EQ(fold({off, {{"kind", "supervising"}}}).spare, "");
}

TEST(History, TheLastFiniteLossStaysBesideANaN) {
  const History h =
      fold({{{"kind", "progress"}, {"step", 4}, {"loss", {{"last", 0.5}}}},
            {{"kind", "progress"}, {"step", 6}, {"non_finite_loss", "NaN"}, {"non_finite_step", 5}}});
  EXPECT_EQ(h.pulse.loss, 0.5);
  EXPECT_EQ(h.pulse.message, "loss is NaN at step 5");
}

TEST(History, ANaNIsSaidUntilAFiniteLossComes) {
  const Json good = {{"kind", "progress"}, {"step", 4}, {"total_steps", 9}, {"loss", {{"last", 0.5}}}};
  const Json bad = {{"kind", "progress"}, {"step", 6}, {"non_finite_loss", "NaN"}, {"non_finite_step", 5}};
  const Json silent = {{"kind", "progress"}, {"step", 7}};
  const Json end = {{"kind", "finished"}, {"seconds", 60}};
  EXPECT_EQ(fold({good, bad, silent}).pulse.message, "loss is NaN at step 5");
  EXPECT_EQ(fold({good, bad, silent, end}).pulse.message, "finished in 1m00s; loss is NaN at step 5");
  EXPECT_EQ(fold({good, bad, good}).pulse.message, "step 4/9");
  EXPECT_EQ(fold({good, bad, {{"kind", "spawned"}}, end}).pulse.message,
            "finished in 1m00s, final loss 0.5000");
}

TEST(History, NoLossIsNamedWhereNoneWasReported) {
  const Json step = {{"kind", "progress"}, {"step", 4}, {"total_steps", 9}};
  const Json end = {{"kind", "finished"}, {"seconds", 60}};
  EXPECT_EQ(fold({step, end}).pulse.message, "finished in 1m00s");
  EXPECT_EQ(describe_progress(fold({step})), "step 4/9");
}

TEST(History, AFailedPackageIsSaidUntilTheNextAttempt) {
  const Json failed = {{"kind", "package_failed"}, {"rank", 0}, {"reason", "restore failed (E)"}};
  const Json step = {{"kind", "progress"}, {"step", 4}};
  const std::string said = "step 4 · nothing is reported or saved any more: restore failed (E)";
  EXPECT_EQ(fold({step, failed}).pulse.message, said);
  EXPECT_EQ(fold({step, failed, {{"kind", "committed"}, {"step", 3}}, step}).pulse.message, said);
  EXPECT_EQ(fold({failed, {{"kind", "spawned"}}, step}).pulse.message, "step 4");
}

TEST(History, TimesThatNoClockShows) {
  const auto stamped = [](Json stamp) {
    return fold({{{"kind", "progress"}, {"step", 1}, {"t", 5.0}, {"stamp", std::move(stamp)}}})
        .pulse.timestamp;
  };
  EXPECT_EQ(stamped(9), 9);
  EXPECT_EQ(stamped(INT64_MAX), 253402300799) << "the last second of the year 9999";
  EXPECT_EQ(stamped(-1), 5);
  EXPECT_EQ(fold({{{"kind", "restamped"}, {"t", 1e300}}}).pulse.timestamp, 253402300799);
}

TEST(History, ARestartTellsWhyAndHowOften) {
  const History h = fold({{{"kind", "waiting"},
                           {"reason", "killed by SIGKILL at step 42"},
                           {"delay", 4.0},
                           {"next", 2},
                           {"budget", 3}}});
  EXPECT_EQ(h.pulse.message, "restarting 2/3 in 4s: killed by SIGKILL at step 42");
  EXPECT_EQ(h.pulse.status, TrainingState::running);
}

TEST(History, Endings) {
  EXPECT_EQ(fold({{{"kind", "stopped"}, {"step", 480}, {"resumable", true}}}).pulse.message,
            "stopped at step 480 (resumable)");
  EXPECT_EQ(fold({{{"kind", "stopped"}, {"step", 480}, {"resumable", true}}}).pulse.status,
            TrainingState::idle);
  const History done = fold({{{"kind", "progress"},
                              {"step", 9},
                              {"total_steps", 9},
                              {"epoch", 2.9},
                              {"total_epochs", 3},
                              {"loss", {{"last", 0.71}}}},
                             {{"kind", "finished"}, {"seconds", 11520}}});
  EXPECT_EQ(done.pulse.status, TrainingState::done);
  EXPECT_EQ(done.pulse.epoch, 3);
  EXPECT_EQ(done.pulse.message, "finished in 3h12m, final loss 0.7100");
  const History failed = fold(
      {{{"kind", "progress"}, {"step", 5}, {"epoch", 1.5}, {"total_epochs", 3}, {"loss", {{"last", 0.4}}}},
       {{"kind", "failed"}, {"reason", "exit code 1 at step 5: ValueError: no"}}});
  EXPECT_EQ(failed.pulse.status, TrainingState::error);
  EXPECT_EQ(failed.pulse.epoch, 1.5);
  EXPECT_EQ(failed.pulse.loss, 0.4);
}

TEST(History, ACheckpointThatIsNotOnDiskIsSaidUntilItIs) {
  History h = fold({{{"kind", "progress"}, {"step", 5}},
                    {{"kind", "persist_failed"}, {"step", 5}, {"reason", "No space left on device"}},
                    {{"kind", "progress"}, {"step", 6}}});
  EXPECT_EQ(h.pulse.message, "step 6 · checkpoint of step 5 is not on disk yet: No space left on device");
  h.apply({{"t", 2000}, {"kind", "committed"}, {"step", 5}});
  h.apply({{"t", 2001}, {"kind", "progress"}, {"step", 7}});
  EXPECT_EQ(h.pulse.message, "step 7");
  EXPECT_EQ(h.checkpoint_step, 5u);
}

TEST(History, OnlyNewsAndVouchingMoveTheTimestamp) {
  History h = fold({{{"kind", "progress"}, {"step", 5}, {"t", 100.9}}});
  EXPECT_EQ(h.pulse.timestamp, 100);
  h.apply({{"kind", "committed"}, {"step", 5}, {"t", 150}});
  EXPECT_EQ(h.pulse.timestamp, 100);
  h.apply({{"kind", "restamped"}, {"t", 160}});
  EXPECT_EQ(h.pulse.timestamp, 160);
}

TEST(History, TheRateIsThatOfThisAttempt) {
  History h = fold({{{"kind", "spawned"}, {"attempt", 1}, {"t", 0}},
                    {{"kind", "progress"}, {"step", 1}, {"total_steps", 100}, {"t", 10}},
                    {{"kind", "progress"}, {"step", 21}, {"total_steps", 100}, {"t", 20}}});
  EXPECT_DOUBLE_EQ(h.steps_per_second(), 2);
  EXPECT_DOUBLE_EQ(*h.seconds_left(), 39.5);
  h.apply({{"kind", "spawned"}, {"attempt", 2}, {"t", 1000}});
  EXPECT_EQ(h.steps_per_second(), 0);
  h.apply({{"kind", "progress"}, {"step", 21}, {"t", 1010}});
  h.apply({{"kind", "progress"}, {"step", 31}, {"t", 1011}});
  EXPECT_DOUBLE_EQ(h.steps_per_second(), 10) << "not steps since the beginning over this attempt's time";
}

// Any row with anything in its fields: never a crash, and PULSE stays within its rules.
TEST(History, AnyRowIsSurvived) {
  const std::vector<Json> values = {nullptr, true, -1, 1e300, "text", Json::array(), Json::object(), 3, -0.5};
  const std::vector<std::string> kinds = {
      "supervising", "spawned",  "resumed", "progress",  "committed",           "persist_failed", "waiting",
      "stopped",     "finished", "failed",  "restamped", "checkpoint_interval", "package_failed", "?"};
  for (const auto& kind : kinds)
    for (const Json& a : values)
      for (const char* key : {"t", "step", "total_steps", "epoch", "total_epochs", "loss", "reason", "delay",
                              "attempt", "pid", "seconds"}) {
        History h;
        h.apply({{"kind", kind}, {"t", 5}, {key, a}});
        EXPECT_FALSE(to_file_bytes(h.pulse).empty());
        describe_row({{"kind", kind}, {"processes", 1}, {key, a}}, h);
      }
}

TEST(Events, ATornLastLineIsEndedByTheNextWriterAndSkippedByReaders) {
  const TemporaryFolder folder;
  const std::string path =
      folder.write("events.jsonl", "{\"t\": 1, \"attempt\": 0, \"kind\": \"a\"}\n{\"t\": 2, \"atte");
  std::vector<std::string> kinds;
  const auto read = [&](uint64_t from) {
    return *read_events(path, from, [&](const Json& row) { kinds.push_back(row.at("kind")); });
  };
  const uint64_t end = read(0);
  EXPECT_EQ(kinds, (std::vector<std::string>{"a"}));
  auto log = EventLog::open(path);
  ASSERT_TRUE(log);
  ASSERT_TRUE(log->append(event_row("b", 1, Wall{})));
  read(end);
  EXPECT_EQ(kinds, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(read_events(folder / "none", 0, [](const Json&) {}).error().kind, ErrorKind::not_found);
}

}  // namespace
}  // namespace bitctl
