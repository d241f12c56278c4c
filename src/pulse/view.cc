#include "pulse/view.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/columns.h"
#include "base/text.h"
#include "base/visible_text.h"

namespace bitctl {
namespace {

constexpr size_t kBarColumns = 40;
constexpr const char* kRed = "31";
constexpr const char* kGreen = "32";

std::string painted(const std::string& text, const char* color, const TerminalInfo& terminal) {
  return terminal.color ? fmt::format("\x1b[{}m{}\x1b[0m", color, text) : text;
}

// "1.5", "3", "0.33".
std::string epoch_text(double epoch) {
  if (epoch >= 1e15) return fmt::format("{:g}", epoch);
  std::string text = fmt::format("{:.2f}", epoch);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

std::string epoch_line(const PulseStatus& status) {
  return fmt::format("Epoch {} / {} ({:.1f}%)", epoch_text(status.epoch), epoch_text(status.total_epochs),
                     progress_percent(status));
}

std::string loss_line(const PulseStatus& status) { return fmt::format("Loss: {:.4f}", status.loss); }

std::string bar(double percent, const TerminalInfo& terminal) {
  const size_t columns = std::clamp<size_t>(terminal.columns, 3, kBarColumns + 2) - 2;
  const auto full = static_cast<size_t>(std::floor(percent / 100 * static_cast<double>(columns)));
  std::string filled, empty;
  for (size_t i = 0; i < columns; ++i) (i < full ? filled : empty) += i < full ? "█" : "░";
  return "[" + painted(filled, kGreen, terminal) + empty + "]";
}

// What an idle or ended training says in its first line.
std::string ending_line(const PulseStatus& status) {
  if (status.status == TrainingState::error) return "❌ " + visible_text(status.message);
  if (status.status == TrainingState::done)
    return fmt::format("✅ Training complete! Final loss: {:.4f}", status.loss);
  return "⏸️ No training in progress";
}

// Before the first report, and of a script that never reports, there is nothing to show but its message.
bool has_reported(const PulseStatus& status) {
  return status.epoch > 0 || status.total_epochs > 0 || status.loss != 0;
}

bool has_more_to_say(const PulseStatus& status) {
  return status.status == TrainingState::idle && !status.message.empty() &&
         status.message != idle_status(0).message;
}

std::vector<std::string> running_lines(const PulseStatus& status, const RunLabels& labels, int64_t now,
                                       const RunFacts& facts) {
  std::vector<std::string> lines = {"Profile: " + visible_text(labels.profile),
                                    "Dataset: " + visible_text(labels.dataset)};
  if (has_reported(status)) {
    lines.push_back(epoch_line(status));
    lines.push_back(loss_line(status));
  }
  std::vector<std::string> pace;
  if (facts.steps_per_second) pace.push_back(fmt::format("{:.3g} step/s", *facts.steps_per_second));
  if (facts.eta) pace.push_back("ETA " + format_duration(*facts.eta));
  if (!pace.empty()) lines.push_back(fmt::format("{}", fmt::join(pace, ", ")));
  if (!facts.last_checkpoint.empty())
    lines.push_back("Last checkpoint: " + visible_text(facts.last_checkpoint));
  if (!status.message.empty()) lines.push_back(visible_text(status.message));
  lines.push_back("Last update: " + age_text(status.timestamp, now));
  return lines;
}

}  // namespace

std::string age_text(int64_t timestamp, int64_t now) {
  const int64_t age = timestamp > now ? 0 : now - timestamp;
  return age < 60 ? fmt::format("{}s ago", age) : fmt::format("{}m ago", age / 60);
}

std::vector<std::string> panel_lines(const PulseStatus& status, const RunLabels& labels, int64_t now,
                                     const TerminalInfo& terminal, const RunFacts& facts) {
  const bool running = status.status == TrainingState::running;
  std::vector<std::string> lines;
  if (running) {
    lines = running_lines(status, labels, now, facts);
  } else {
    lines = {ending_line(status)};
    if (has_more_to_say(status)) lines.push_back(visible_text(status.message));
  }
  // The reason of an error is shown whole; nothing is drawn over it any more.
  if (status.status != TrainingState::error)
    for (std::string& line : lines) line = clipped(line, terminal.columns);
  if (running && has_reported(status))
    lines.insert(lines.begin() + 2, bar(progress_percent(status), terminal));
  if (status.status == TrainingState::error) lines[0] = painted(lines[0], kRed, terminal);
  if (status.status == TrainingState::done) lines[0] = painted(lines[0], kGreen, terminal);
  return lines;
}

std::string event_line(const PulseStatus& status, int64_t now) {
  if (status.status != TrainingState::running)
    return ending_line(status) + (has_more_to_say(status) ? ": " + visible_text(status.message) : "");
  std::vector<std::string> parts;
  if (has_reported(status)) parts = {epoch_line(status), loss_line(status)};
  if (!status.message.empty()) parts.push_back(visible_text(status.message));
  parts.push_back("Last update: " + age_text(status.timestamp, now));
  return fmt::format("{}", fmt::join(parts, " · "));
}

std::string Panel::erase() {
  const size_t lines = std::exchange(drawn_, 0);
  return lines == 0 ? "" : fmt::format("\x1b[{}A\r\x1b[J", lines);
}

std::string Panel::draw(std::vector<std::string> lines, const TerminalInfo& terminal) {
  std::string text = erase();
  // What has scrolled off the screen cannot be drawn over: a low window shows the end of the panel.
  const size_t most = std::max<size_t>(terminal.rows, 2) - 1;
  if (lines.size() > most) lines.erase(lines.begin(), lines.end() - static_cast<long>(most));
  for (const std::string& line : lines) text += line + "\n";
  drawn_ = lines.size();
  return text;
}

}  // namespace bitctl
