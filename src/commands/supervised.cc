#include "commands/supervised.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>
#include <deque>

#include "base/exit_code.h"
#include "base/log.h"
#include "base/read_file.h"
#include "base/terminal_info.h"
#include "base/text.h"
#include "base/visible_text.h"
#include "commands/commands.h"
#include "commands/printer.h"
#include "pulse/view.h"
#include "run/describe.h"
#include "supervise/supervisor.h"

namespace bitctl {
namespace {

constexpr size_t kTailLines = 12;
constexpr Duration kProgressPace = std::chrono::seconds(5);  // of the lines off a terminal

class Console {
 public:
  Console(EventLoop& loop, Printer& printer, const RunConfig& config, bool plain)
      : loop_(loop), printer_(printer), draws_(!plain && terminal_info(STDOUT_FILENO).interactive) {
    labels_.profile = config.labels.at("profile");
    labels_.dataset = config.labels.at("dataset");
    if (draws_) tick();
  }

  void on_row(const History& history, const Json& row) {
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

  // A line that stays, above the panel.
  void note(const std::string& text) {
    if (text.empty()) return;
    const std::time_t now = std::time(nullptr);
    printer_.print(STDOUT_FILENO, fmt::format("{:%H:%M:%S}  {}\n", fmt::localtime(now), text));
  }

  void close() {
    if (draws_) draw();
    draws_ = false;
    printer_.leave_panel();
  }

 private:
  void tick() {
    draw();
    loop_.call_after(std::chrono::seconds(1), [this] {
      if (draws_) tick();
    });
  }

  void draw() {
    const TerminalInfo terminal = terminal_info(STDOUT_FILENO);
    RunFacts facts;
    if (const double rate = history_.steps_per_second(); rate > 0) facts.steps_per_second = rate;
    if (const auto left = history_.seconds_left()) facts.eta = from_seconds(*left);
    const int64_t now = unix_seconds(system_clock().wall());
    if (history_.checkpoint_step)
      facts.last_checkpoint = fmt::format("step {}, {}", *history_.checkpoint_step,
                                          age_text(static_cast<int64_t>(history_.checkpoint_time), now));
    printer_.draw(panel_lines(history_.pulse, labels_, now, terminal, facts), terminal);
  }

  EventLoop& loop_;
  Printer& printer_;
  RunLabels labels_;
  History history_;
  bool draws_;
  Mono last_progress_{};
};

// The last lines of the attempt's log: where the answer to "why" usually stands.
std::string log_tail(const RunFolder& folder, int attempt) {
  std::FILE* file = std::fopen(folder.log_of_attempt(attempt).c_str(), "r");
  if (file == nullptr) return {};
  std::fseek(file, 0, SEEK_END);
  const long size = std::ftell(file);
  std::fseek(file, std::max(0L, size - 16384), SEEK_SET);
  std::string text(16384, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  std::deque<std::string> lines;
  for (std::string& line : split(text, '\n')) {
    lines.push_back(std::move(line));
    if (lines.size() > kTailLines + 1) lines.pop_front();
  }
  std::string tail = fmt::format("the end of {}:\n", folder.log_of_attempt(attempt));
  for (const std::string& line : lines)
    if (!line.empty()) tail += fmt::format("  {}\n", visible_text(line));
  return tail;
}

void print_what_next(Printer& printer, const RunFolder& folder, const History& history, int code) {
  const std::string id = folder.id();
  if (code == kOk) {
    std::error_code error;
    if (std::filesystem::exists(folder.model(), error))
      printer.print(STDOUT_FILENO, fmt::format("model: {}\ntalk:  bitctl chat {}\n", folder.model(), id));
  } else if (code == kStopped) {
    printer.print(STDOUT_FILENO, fmt::format("resume: bitctl resume {}\n", id));
  } else {
    printer.print(STDERR_FILENO, fmt::format("{}bitctl: {}\n", log_tail(folder, history.attempt),
                                             visible_text(history.pulse.message)));
  }
}

}  // namespace

Fd block_run_signals() {
  ::signal(SIGPIPE, SIG_IGN);
  return block_and_watch_signals({SIGINT, SIGTERM, SIGHUP, SIGCHLD});
}

int supervise_in_foreground(HeldRun run, const RunConfig& config, Fd signals, const ShowOptions& show) {
  const RunFolder folder = run.folder;
  log_to_file(folder.own_log());
  std::fflush(stdout);
  Printer printer;
  printer.print(STDOUT_FILENO, fmt::format("run {}\n", folder.path()));
  EventLoop loop;
  Console console(loop, printer, config, show.plain);
  Supervisor supervisor(loop, std::move(run), config, std::move(signals),
                        {[&](const History& history, const Json& row) { console.on_row(history, row); },
                         [&](const std::string& text) { console.note(text); }});
  const auto code = supervisor.run();
  console.close();
  flush_log();
  if (!code) return complain(code.error(), kOwnFailure);
  print_what_next(printer, folder, supervisor.history(), *code);
  return *code;
}

}  // namespace bitctl
