#include "pulse/follow.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "pulse/write.h"
#include "unit/schema_check.h"
#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kStart = 1732800000;
const PulseRead kMissing = PulseMissing{};
const PulseRead kDamaged = PulseDamaged{"p", 7, "bad"};

PulseStatus running(int64_t age_at_start = 0) {
  return {TrainingState::running, 1.5, 3, 0.5, "step 1", kStart - age_at_start};
}

PulseRead good(const PulseStatus& status) { return PulseGood{status, {}}; }

PulseRead ended(TrainingState state) {
  PulseStatus status = running();
  status.status = state;
  return good(status);
}

// A follow whose clock stands where each step puts it, in seconds after the start.
class Follow {
 public:
  FollowStep at(double second, const PulseRead& read) {
    const auto passed = std::chrono::duration_cast<milliseconds>(std::chrono::duration<double>(second));
    return state.step(Mono() + seconds(1000) + passed, Wall(seconds(kStart)) + passed, read);
  }
  FollowState state;
};

std::vector<std::string> warnings(const FollowStep& step) {
  std::vector<std::string> texts;
  for (const FollowLog& line : step.log)
    if (line.level >= spdlog::level::warn) texts.push_back(line.text);
  return texts;
}

TEST(FollowState, TellsTheFirstStatusAtOnce) {
  Follow follow;
  EXPECT_FALSE(follow.state.heartbeat_due());
  const FollowStep step = follow.at(0, good(running()));
  EXPECT_EQ(step.emit, running());
  EXPECT_FALSE(step.end);
  ASSERT_EQ(step.log.size(), 2u);
  EXPECT_EQ(step.log[0].text, "Emitting training status: running (epoch 1.5/3)");
  EXPECT_EQ(step.log[1].level, spdlog::level::debug);
  EXPECT_THAT(step.log[1].text,
              testing::StartsWith("[TrainingPanel] Status update: {\"status\":\"running\","));
  EXPECT_EQ(follow.state.heartbeat_due(), Mono() + seconds(1010));
}

TEST(FollowState, TellsAnyChangeAndNothingTwice) {
  Follow follow;
  follow.at(0, good(running()));
  EXPECT_FALSE(follow.at(2, good(running())).emit);
  PulseStatus status = running();
  double second = 2;
  const auto changed = [&](auto change) {
    change(status);
    const bool told = follow.at(second += 0.1, good(status)).emit == status;
    return told && !follow.at(second += 0.1, good(status)).emit;
  };
  EXPECT_TRUE(changed([](PulseStatus& s) { s.epoch += 0.01; }));
  EXPECT_TRUE(changed([](PulseStatus& s) { s.total_epochs += 1; }));
  EXPECT_TRUE(changed([](PulseStatus& s) { s.loss -= 0.001; }));
  EXPECT_TRUE(changed([](PulseStatus& s) { s.message += "."; }));
  EXPECT_TRUE(changed([](PulseStatus& s) { s.timestamp += 1; }));
  EXPECT_FALSE(changed([](PulseStatus&) {}));
}

TEST(FollowState, TellsAnUnchangedStatusAgainAfterExactlyTenSeconds) {
  Follow follow;
  follow.at(0, good(running()));
  EXPECT_FALSE(follow.at(9.999, good(running())).emit);
  EXPECT_TRUE(follow.at(10, good(running())).emit);
  EXPECT_FALSE(follow.at(19.999, good(running())).emit);
  EXPECT_TRUE(follow.at(20, good(running())).emit);
}

TEST(FollowState, AChangePutsTheHeartbeatOff) {
  Follow follow;
  follow.at(0, good(running()));
  PulseStatus changed = running();
  changed.epoch = 2;
  EXPECT_TRUE(follow.at(9, good(changed)).emit);
  EXPECT_FALSE(follow.at(18.9, good(changed)).emit);
  EXPECT_TRUE(follow.at(19, good(changed)).emit);
}

TEST(FollowState, AnIdleFileIsToldSixTimesAMinute) {
  Follow follow;
  int told = 0;
  for (int second = 0; second < 60; second += 2)
    told += follow.at(second, ended(TrainingState::idle)).emit.has_value();
  EXPECT_EQ(told, 6);
}

TEST(FollowState, EndsWithTheTraining) {
  for (const auto& [state, end] : {std::pair{TrainingState::done, FollowEnd::done},
                                   {TrainingState::error, FollowEnd::error},
                                   {TrainingState::idle, FollowEnd::stopped}}) {
    Follow follow;
    EXPECT_FALSE(follow.at(0, good(running())).end);
    const FollowStep step = follow.at(1, ended(state));
    EXPECT_EQ(step.end, end);
    EXPECT_TRUE(step.emit);
    EXPECT_EQ(step.log.back().text, "Training finished with status: " + std::string(state_name(state)));
  }
}

TEST(FollowState, WaitsForATrainingThatIsIdleAtFirst) {
  Follow follow;
  EXPECT_FALSE(follow.at(0, ended(TrainingState::idle)).end);
  EXPECT_FALSE(follow.at(20, ended(TrainingState::idle)).end);
  EXPECT_FALSE(follow.at(21, good(running())).end);
  EXPECT_EQ(follow.at(22, ended(TrainingState::idle)).end, FollowEnd::stopped);
}

TEST(FollowState, AnEndThatIsThereAlreadyEndsAtOnce) {
  EXPECT_EQ(Follow().at(0, ended(TrainingState::done)).end, FollowEnd::done);
  EXPECT_EQ(Follow().at(0, ended(TrainingState::error)).end, FollowEnd::error);
}

TEST(FollowState, SilenceOfMoreThanSixtySecondsIsStale) {
  Follow follow;
  follow.at(0, good(running()));
  EXPECT_FALSE(follow.at(59, good(running())).end);
  EXPECT_FALSE(follow.at(60, good(running())).end);
  const FollowStep step = follow.at(61, good(running()));
  EXPECT_EQ(step.end, FollowEnd::stale);
  EXPECT_EQ(step.emit, as_stale(running()));
  EXPECT_THAT(warnings(step), ElementsAre("Training status is stale (>60s), converting to error"));
}

TEST(FollowState, OnlyARunningStatusBecomesStale) {
  for (const TrainingState state : {TrainingState::idle, TrainingState::done, TrainingState::error})
    EXPECT_NE(Follow().at(100000, ended(state)).end, FollowEnd::stale);
}

TEST(FollowState, ALostFileIsReplacedByTheLastGoodStatusWhichAgesToo) {
  for (const PulseRead& lost : {kMissing, kDamaged}) {
    Follow follow;
    follow.at(0, good(running()));
    EXPECT_THAT(warnings(follow.at(2, lost)),
                testing::Contains("Training status file unreadable, using cached status: running"));
    EXPECT_THAT(warnings(follow.at(4, lost)), ElementsAre());
    EXPECT_EQ(follow.at(10, lost).emit, running());
    EXPECT_FALSE(follow.at(60, lost).end);
    EXPECT_EQ(follow.at(61, lost).end, FollowEnd::stale);
  }
}

TEST(FollowState, DamageIsNamedOnceAndQuietlyForgotten) {
  Follow follow;
  EXPECT_THAT(warnings(follow.at(0, kDamaged)),
              ElementsAre("Failed to parse training status: p: byte 7: bad"));
  EXPECT_THAT(warnings(follow.at(2, kDamaged)), ElementsAre());
  EXPECT_EQ(follow.at(4, good(running())).emit, running());
  const PulseRead unreadable = PulseDamaged{"p", 0, "a FIFO, not a file", false};
  EXPECT_THAT(warnings(follow.at(12, unreadable)),
              ElementsAre("Failed to read training status: p: a FIFO, not a file",
                          "Training status file unreadable, using cached status: running"));
}

TEST(FollowState, AFileThatIsBrokenAtEveryOtherReadDoesNotFloodTheLog) {
  Follow follow;
  size_t lines = 0;
  for (int tenth = 0; tenth < 300; ++tenth)
    lines += warnings(follow.at(tenth / 10.0, tenth % 2 ? kDamaged : good(running()))).size();
  EXPECT_EQ(lines, 6u);  // two every ten seconds
}

TEST(FollowState, AMissingFileIsWaitedForInSilence) {
  Follow follow;
  for (int second = 0; second < 100; second += 2) {
    const FollowStep step = follow.at(second, kMissing);
    EXPECT_FALSE(step.emit || step.end);
    EXPECT_TRUE(step.log.empty());
  }
}

TEST(FollowState, UnknownKeysWarnOnce) {
  Follow follow;
  const PulseRead read = PulseGood{running(), {"progress", "e\x1bvil"}};
  EXPECT_THAT(warnings(follow.at(0, read)),
              ElementsAre("Keys that PULSE v1 does not know are ignored: progress, e^[vil"));
  EXPECT_THAT(warnings(follow.at(1, read)), ElementsAre());
}

TEST(FollowState, AClockAheadOfOursIsNotStale) {
  Follow follow;
  EXPECT_FALSE(follow.at(0, good(running(-3600))).end);
  EXPECT_FALSE(follow.at(3600, good(running(-3600))).end);
}

// --- the edge

class FollowerTest : public testing::Test {
 protected:
  Follower& follow(Duration interval) {
    follower_.emplace(loop_, path_, interval, [this](const FollowStep& step) {
      if (step.emit) told_.push_back(*step.emit);
      if (step.end) end_ = step.end;
      for (const std::string& text : warnings(step)) warnings_.push_back(text);
    });
    follower_->start();
    return *follower_;
  }

  void TearDown() override {
    if (std::filesystem::exists(path_)) {
      EXPECT_EQ(schema_complaints("pulse.v1", read_text(path_)), "");
    }
  }

  // Runs the loop until something is so; a deadline far beyond need.
  bool until(const std::function<bool()>& so) {
    const Mono deadline = loop_.now() + seconds(60);
    while (!so() && loop_.now() < deadline) loop_.run_once(milliseconds(50));
    return so();
  }

  static PulseStatus now_running(double epoch) {
    PulseStatus status = running();
    status.epoch = epoch;
    status.timestamp = unix_seconds(system_clock().wall());
    return status;
  }

  TemporaryFolder folder_;
  std::string path_ = folder_ / "run/training_status.json";
  EventLoop loop_;
  std::optional<Follower> follower_;
  std::vector<PulseStatus> told_;
  std::vector<std::string> warnings_;
  std::optional<FollowEnd> end_;
};

// An interval at which only an event can wake it, as long as no status has been told: then the heartbeat
// does.
constexpr Duration kNever = std::chrono::hours(1);

TEST_F(FollowerTest, AFolderThatGivesNoEventsIsToldOnce) {
  const std::string good = std::exchange(path_, folder_ / (std::string(300, 'x') + "/training_status.json"));
  follow(milliseconds(1));
  EXPECT_THAT(warnings_[0], testing::StartsWith("Polling error: no events for " + folder_.path()));
  EXPECT_THAT(warnings_[0], testing::EndsWith("File name too long; it is read every 0.001s"));
  const size_t told = warnings_.size();
  const Mono later = loop_.now() + milliseconds(50);
  ASSERT_TRUE(until([&] { return loop_.now() >= later; }));
  EXPECT_EQ(warnings_.size(), told);
  path_ = good;
}

TEST_F(FollowerTest, AFileThatIsPublishedIsSeenAtOnce) {
  std::filesystem::create_directory(folder_ / "run");
  follow(kNever);
  ASSERT_TRUE(write_pulse(path_, now_running(2)));
  EXPECT_TRUE(until([&] { return told_.size() == 1; }));
}

TEST_F(FollowerTest, ReadsAtOnceAndThenToTheEnd) {
  std::filesystem::create_directory(folder_ / "run");
  ASSERT_TRUE(write_pulse(path_, now_running(1)));
  follow(kNever);
  ASSERT_EQ(told_.size(), 1u);
  ASSERT_TRUE(write_pulse(path_, now_running(2)));
  ASSERT_TRUE(until([&] { return told_.size() == 2; }));
  EXPECT_EQ(told_[1].epoch, 2);
  PulseStatus done = now_running(3);
  done.status = TrainingState::done;
  ASSERT_TRUE(write_pulse(path_, done));
  ASSERT_TRUE(until([&] { return end_.has_value(); }));
  EXPECT_EQ(end_, FollowEnd::done);
  EXPECT_EQ(told_.back(), done);
}

TEST_F(FollowerTest, AFileWrittenInPlaceIsSeenToo) {
  std::filesystem::create_directory(folder_ / "run");
  follow(kNever);
  folder_.write("run/training_status.json", to_file_bytes(now_running(2)));
  EXPECT_TRUE(until([&] { return told_.size() == 1; }));
}

TEST_F(FollowerTest, OtherFilesOfTheFolderWakeNobody) {
  std::filesystem::create_directory(folder_ / "run");
  follow(kNever);
  folder_.write("run/other.json", to_file_bytes(now_running(2)));
  ASSERT_TRUE(write_pulse(folder_ / "run/another.json", now_running(2)));
  for (int i = 0; i < 4; ++i) loop_.run_once(milliseconds(50));
  EXPECT_TRUE(told_.empty());
}

TEST_F(FollowerTest, AFolderThatComesLaterIsFound) {
  follow(milliseconds(20));
  EXPECT_TRUE(told_.empty());
  std::filesystem::create_directory(folder_ / "run");
  ASSERT_TRUE(write_pulse(path_, now_running(1)));
  EXPECT_TRUE(until([&] { return told_.size() == 1; }));
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(FollowerTest, AFolderThatIsReplacedIsFollowedOn) {
  std::filesystem::create_directory(folder_ / "run");
  follow(kNever);
  std::filesystem::rename(folder_ / "run", folder_ / "old");
  std::filesystem::create_directory(folder_ / "run");
  for (int i = 0; i < 4; ++i) loop_.run_once(milliseconds(50));
  ASSERT_TRUE(write_pulse(path_, now_running(2)));
  EXPECT_TRUE(until([&] { return told_.size() == 1; }));
}

TEST_F(FollowerTest, AWriterWithoutPauseDoesNotMakeItReadWithoutPause) {
  std::filesystem::create_directory(folder_ / "run");
  ASSERT_TRUE(write_pulse(path_, now_running(0)));
  follow(kNever);
  const Mono begin = loop_.now();
  for (int i = 1; i <= 300; ++i) {
    ASSERT_TRUE(write_pulse(path_, now_running(i)));
    loop_.run_once(Duration::zero());
  }
  ASSERT_TRUE(until([&] { return told_.back().epoch == 300; }));
  const auto tenths = (loop_.now() - begin) / milliseconds(100);
  EXPECT_LE(static_cast<long>(told_.size()), tenths + 2);
}

TEST_F(FollowerTest, ItSleepsAfterTheEnd) {
  std::filesystem::create_directory(folder_ / "run");
  PulseStatus status = now_running(3);
  status.status = TrainingState::error;
  ASSERT_TRUE(write_pulse(path_, status));
  follow(milliseconds(1));
  EXPECT_EQ(end_, FollowEnd::error);
  ASSERT_TRUE(write_pulse(path_, now_running(1)));
  for (int i = 0; i < 4; ++i) loop_.run_once(milliseconds(20));
  EXPECT_EQ(told_.size(), 1u);
}

TEST_F(FollowerTest, WithoutEventsTheIntervalServes) {
  // A folder that is no folder gives no events: the name is a file, then a folder.
  folder_.write("run", "");
  follow(milliseconds(20));
  std::filesystem::remove(folder_ / "run");
  std::filesystem::create_directory(folder_ / "run");
  ASSERT_TRUE(write_pulse(path_, now_running(1)));
  EXPECT_TRUE(until([&] { return told_.size() == 1; }));
}

}  // namespace
}  // namespace bitctl
