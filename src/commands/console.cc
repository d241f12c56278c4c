#include "commands/console.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>
#include <deque>
#include <filesystem>

#include "base/exit_code.h"
#include "base/read_file.h"
#include "base/terminal_info.h"
#include "base/text.h"
#include "base/visible_text.h"
#include "run/describe.h"

namespace bitctl {
namespace {

constexpr size_t kTailLines = 12;
constexpr size_t kTailBytes = 16384;
constexpr Duration kProgressPace = std::chrono::seconds(5);  // of the lines off a terminal

// The last lines of the attempt's log: where the answer to "why" usually stands.
std::string log_tail(const RunFolder& folder, int attempt) {
  const auto text = read_tail(folder.log_of_attempt(attempt), kTailBytes);
  if (!text) return {};
  std::deque<std::string> lines;
  for (std::string& line : split(*text, '\n')) {
    lines.push_back(std::move(line));
    if (lines.size() > kTailLines + 1) lines.pop_front();
  }
  std::string tail = fmt::format("the end of {}:\n", folder.log_of_attempt(attempt));
  for (const std::string& line : lines)
    if (!line.empty()) tail += fmt::format("  {}\n", visible_text(line));
  return tail;
}

}  // namespace

Console::Console(EventLoop& loop, Printer& printer, RunLabels labels, bool plain)
    : loop_(loop),
      printer_(printer),
      labels_(std::move(labels)),
      draws_(!plain && terminal_info(STDOUT_FILENO).interactive) {
  if (draws_) tick();
}

Console::~Console() { loop_.cancel(timer_); }

void Console::begin(const History& history) {
  history_ = history;
  if (draws_) draw();
}

void Console::on_row(const History& history, const Json& row) {
  history_ = history;
  const std::string kind = get_text(row, "kind");
  if (draws_) {
    if (kind != "progress") note(describe_row(row, history));
    draw();
  } else if (kind != "progress" || row.contains("non_finite_loss") ||
             loop_.now() - last_progress_ >= kProgressPace) {
    if (kind == "progress") last_progress_ = loop_.now();
    note(describe_row(row, history));
  }
}

void Console::note(const std::string& text) {
  if (text.empty()) return;
  const std::time_t now = std::time(nullptr);
  printer_.print(STDOUT_FILENO, fmt::format("{:%H:%M:%S}  {}\n", fmt::localtime(now), text));
}

void Console::close() {
  if (draws_) draw();
  draws_ = false;
  loop_.cancel(timer_);
  printer_.leave_panel();
}

void Console::tick() {
  draw();
  timer_ = loop_.call_after(std::chrono::seconds(1), [this] { tick(); });
}

void Console::draw() {
  const TerminalInfo terminal = terminal_info(STDOUT_FILENO);
  RunFacts facts;
  if (const double rate = history_.steps_per_second(); rate > 0) facts.steps_per_second = rate;
  if (const auto left = history_.seconds_left()) facts.eta = from_seconds(*left);
  const int64_t now = unix_seconds(system_clock().wall());
  if (history_.checkpoint_step)
    facts.last_checkpoint = fmt::format("step {}, {}", *history_.checkpoint_step,
                                        age_text(static_cast<int64_t>(history_.checkpoint_time), now));
  if (history_.checkpoint_step && history_.checkpoint_interval > 0)
    facts.last_checkpoint +=
        fmt::format(" (every {})", format_duration(from_seconds(history_.checkpoint_interval)));
  printer_.draw(panel_lines(history_.pulse, labels_, now, terminal, facts), terminal);
}

void print_what_next(Printer& printer, const RunFolder& folder, const History& history, int code) {
  const std::string id = folder.id();
  if (code == kOk) {
    std::error_code error;
    if (std::filesystem::exists(folder.model(), error))
      printer.print(STDOUT_FILENO, fmt::format("model: {}\n", folder.model()));
    // Weights alone do not say how to talk to them.
    if (std::filesystem::exists(folder.model() + "/config.json", error))
      printer.print(STDOUT_FILENO, fmt::format("talk:  bitctl chat {}\n", id));
  } else if (code == kStopped) {
    printer.print(STDOUT_FILENO, fmt::format("resume: bitctl resume {}\n", id));
  } else {
    printer.print(STDERR_FILENO,
                  fmt::format("{}bitctl: {}\nwhy:   bitctl why {}\n", log_tail(folder, history.attempt),
                              visible_text(history.pulse.message), id));
  }
}

}  // namespace bitctl
