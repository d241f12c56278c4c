#include "pulse/view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "base/columns.h"

namespace bitctl {
namespace {

using namespace std::string_literals;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kNow = 1732800000;
const PulseStatus kRunning{TrainingState::running, 1.5, 3, 0.342, "epoch 2/3, step 150/800", kNow - 3};
const TerminalInfo kPipe;
const TerminalInfo kScreen{.interactive = true, .color = true, .columns = 30, .rows = 24};

std::string join(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

TEST(Panel, OfARunningTraining) {
  EXPECT_THAT(
      panel_lines(kRunning, {"lora", "chitchat"}, kNow, kPipe),
      ElementsAre("Profile: lora", "Dataset: chitchat", "[████████████████████░░░░░░░░░░░░░░░░░░░░]",
                  "Epoch 1.5 / 3 (50.0%)", "Loss: 0.3420", "epoch 2/3, step 150/800", "Last update: 3s ago"));
}

TEST(Panel, SaysUnknownWhereNoLabelIsKnown) {
  const std::string text = join(panel_lines(kRunning, {}, kNow, kPipe));
  EXPECT_THAT(text, HasSubstr("Profile: Unknown\nDataset: Unknown\n"));
}

TEST(Panel, OfAnEndedOrIdleTraining) {
  PulseStatus status = kRunning;
  status.status = TrainingState::error;
  status.message = "killed by SIGKILL at step 42";
  EXPECT_THAT(panel_lines(status, {}, kNow, kPipe), ElementsAre("❌ killed by SIGKILL at step 42"));
  status.status = TrainingState::done;
  EXPECT_THAT(panel_lines(status, {}, kNow, kPipe), ElementsAre("✅ Training complete! Final loss: 0.3420"));
  EXPECT_THAT(panel_lines(idle_status(kNow), {}, kNow, kPipe), ElementsAre("⏸️ No training in progress"));
  status.status = TrainingState::idle;
  status.message = "stopped at step 480 (resumable)";
  EXPECT_THAT(panel_lines(status, {}, kNow, kPipe),
              ElementsAre("⏸️ No training in progress", "stopped at step 480 (resumable)"));
}

TEST(Panel, ShowsWhatTheSupervisorKnowsBesides) {
  const RunFacts facts{
      .steps_per_second = 2.345, .eta = std::chrono::seconds(250), .last_checkpoint = "step 120"};
  EXPECT_THAT(join(panel_lines(kRunning, {}, kNow, kPipe, facts)),
              HasSubstr("Loss: 0.3420\n2.35 step/s, ETA 4m10s\nLast checkpoint: step 120\nepoch 2/3"));
  EXPECT_THAT(join(panel_lines(kRunning, {}, kNow, kPipe, {.eta = std::chrono::seconds(1)})),
              HasSubstr("\nETA 1s\n"));
}

TEST(Panel, EpochsLoseTheirNoise) {
  const auto line = [](double epoch, double total) {
    PulseStatus status = kRunning;
    status.epoch = epoch;
    status.total_epochs = total;
    return panel_lines(status, {}, kNow, kPipe)[3];
  };
  EXPECT_EQ(line(0, 3), "Epoch 0 / 3 (0.0%)");
  EXPECT_EQ(line(2.5, 3), "Epoch 2.5 / 3 (83.3%)");
  EXPECT_EQ(line(3, 3), "Epoch 3 / 3 (100.0%)");
  EXPECT_EQ(line(1.0 / 3, 1), "Epoch 0.33 / 1 (33.3%)");
  EXPECT_EQ(line(100, 200), "Epoch 100 / 200 (50.0%)");
  EXPECT_EQ(line(0, 0), "Epoch 0 / 0 (0.0%)");
  EXPECT_EQ(line(1e300, 1e300), "Epoch 1e+300 / 1e+300 (100.0%)");
}

TEST(Panel, ShowsNoNumbersThatNobodyReported) {
  PulseStatus status{TrainingState::running, 0, 0, 0, "Starting…", kNow};
  EXPECT_EQ(join(panel_lines(status, {}, kNow, kPipe)),
            "Profile: Unknown\nDataset: Unknown\nStarting…\nLast update: 0s ago\n");
  EXPECT_EQ(event_line(status, kNow), "Starting… · Last update: 0s ago");
  status.total_epochs = 3;
  EXPECT_THAT(join(panel_lines(status, {}, kNow, kPipe)), HasSubstr("Epoch 0 / 3 (0.0%)\nLoss: 0.0000\n"));
}

TEST(Age, CountsSecondsThenMinutes) {
  EXPECT_EQ(age_text(kNow, kNow), "0s ago");
  EXPECT_EQ(age_text(kNow - 59, kNow), "59s ago");
  EXPECT_EQ(age_text(kNow - 60, kNow), "1m ago");
  EXPECT_EQ(age_text(kNow - 7199, kNow), "119m ago");
  EXPECT_EQ(age_text(kNow + 5, kNow), "0s ago");
  EXPECT_EQ(age_text(INT64_MAX, kNow), "0s ago");
}

TEST(Panel, FitsTheTerminal) {
  PulseStatus status = kRunning;
  status.message = std::string(100, 'x');
  const RunLabels labels{"日本語日本語日本語日本語日本語日本語", "d"};
  for (size_t columns = 1; columns < 60; ++columns)
    for (const std::string& line :
         panel_lines(status, labels, kNow, {.interactive = true, .columns = columns}))
      EXPECT_LE(columns_of(line), std::max<size_t>(columns, 3)) << line;
  EXPECT_EQ(panel_lines(status, labels, kNow, kPipe)[5], status.message);
  status.status = TrainingState::error;
  EXPECT_EQ(panel_lines(status, labels, kNow, {.interactive = true, .columns = 40})[0],
            "❌ " + status.message);
}

TEST(Panel, IsColouredOnlyWhereColourIsWanted) {
  PulseStatus failed = kRunning;
  failed.status = TrainingState::error;
  EXPECT_THAT(panel_lines(failed, {}, kNow, kScreen)[0], testing::StartsWith("\x1b[31m❌"));
  TerminalInfo plain = kScreen;
  plain.color = false;
  for (const PulseStatus& status : {failed, kRunning})
    EXPECT_EQ(join(panel_lines(status, {}, kNow, plain)).find('\x1b'), std::string::npos);
}

TEST(EventLine, SaysItInOneLine) {
  EXPECT_EQ(event_line(kRunning, kNow),
            "Epoch 1.5 / 3 (50.0%) · Loss: 0.3420 · epoch 2/3, step 150/800 · Last update: 3s ago");
  PulseStatus status = kRunning;
  status.status = TrainingState::idle;
  status.message = "stopped at step 480 (resumable)";
  EXPECT_EQ(event_line(status, kNow), "⏸️ No training in progress: stopped at step 480 (resumable)");
  status.status = TrainingState::done;
  EXPECT_EQ(event_line(status, kNow), "✅ Training complete! Final loss: 0.3420");
}

TEST(View, NothingOfTheTrainerReachesTheTerminalAsACommand) {
  std::mt19937 random(7);
  const std::vector<std::string> evil = {"\x1b]0;x\x07",
                                         "\x1b[2J",
                                         "\xc2\x9b"
                                         "31m",
                                         "\x9b",
                                         "\r",
                                         "\n",
                                         "\x7f",
                                         "\u202e",
                                         "\u2066x",
                                         "\u200f",
                                         "\0"s,
                                         "e\u0301",
                                         "日"};
  for (int round = 0; round < 5000; ++round) {
    PulseStatus status = kRunning;
    status.status = static_cast<TrainingState>(random() % 4);
    status.message.clear();
    for (int i = 0; i < 6; ++i) status.message += evil[random() % evil.size()] + static_cast<char>(random());
    const RunLabels labels{status.message, status.message};
    const std::string text = join(panel_lines(status, labels, kNow, {.interactive = true, .columns = 60})) +
                             event_line(status, kNow);
    for (const char c : text)
      ASSERT_TRUE(c == '\n' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f)) << text;
    for (const char* control : {"\xc2\x9b", "\u202e", "\u2066", "\u200f"})
      ASSERT_EQ(text.find(control), std::string::npos) << text;
    ASSERT_EQ(event_line(status, kNow).find('\n'), std::string::npos);
  }
}

TEST(PanelDrawing, DrawsOverItselfAndMakesRoomForOtherLines) {
  Panel panel;
  EXPECT_EQ(panel.erase(), "");
  EXPECT_EQ(panel.draw({"a", "b"}, kScreen), "a\nb\n");
  EXPECT_EQ(panel.draw({"c"}, kScreen), "\x1b[2A\r\x1b[Jc\n");
  EXPECT_EQ(panel.erase(), "\x1b[1A\r\x1b[J");
  EXPECT_EQ(panel.erase(), "");
}

TEST(PanelDrawing, ALowWindowShowsTheEnd) {
  Panel panel;
  TerminalInfo low = kScreen;
  low.rows = 3;
  EXPECT_EQ(panel.draw({"a", "b", "c", "d"}, low), "c\nd\n");
}

}  // namespace
}  // namespace bitctl
