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
#include "pulse/view.h"
#include "run/describe.h"
#include "supervise/supervisor.h"

namespace bitctl {
namespace {

using std::chrono::seconds;

constexpr size_t kTailLines = 12;

// Draws on stdout; a terminal that is gone is no reason to stop.
class Console {
 public:
  Console(EventLoop& loop, const RunConfig& config, bool plain)
      : loop_(loop), draws_(!plain && terminal_info(STDOUT_FILENO).interactive) {
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
    } else if (kind != "progress" || loop_.now() - last_progress_ >= seconds(5)) {
      if (kind == "progress") last_progress_ = loop_.now();
      note(describe_row(row, history));
    }
  }

  // A line that stays, above the panel.
  void note(const std::string& text) {
    if (text.empty()) return;
    const std::time_t now = std::time(nullptr);
    put(panel_.erase() + fmt::format("{:%H:%M:%S}  {}\n", fmt::localtime(now), text));
    if (draws_) draw();
  }

  void close() {
    if (draws_) draw();
    draws_ = false;
  }

 private:
  void tick() {
    draw();
    loop_.call_after(seconds(1), [this] {
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
    put(panel_.draw(panel_lines(history_.pulse, labels_, now, terminal, facts), terminal));
  }

  static void put(const std::string& text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size()) std::fflush(stdout);
  }

  EventLoop& loop_;
  RunLabels labels_;
  History history_;
  Panel panel_;
  bool draws_;
  Mono last_progress_{};
};

// The last lines of the attempt's log: where the answer to "why" usually stands.
void print_log_tail(const RunFolder& folder, int attempt) {
  std::FILE* file = std::fopen(folder.log_of_attempt(attempt).c_str(), "r");
  if (file == nullptr) return;
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
  std::fprintf(stderr, "the end of %s:\n", folder.log_of_attempt(attempt).c_str());
  for (const std::string& line : lines)
    if (!line.empty()) std::fprintf(stderr, "  %s\n", visible_text(line).c_str());
}

void print_what_next(const RunFolder& folder, const History& history, int code) {
  const std::string id = folder.id();
  if (code == kOk) {
    std::error_code error;
    if (std::filesystem::exists(folder.model(), error))
      std::printf("model: %s\ntalk:  bitctl chat %s\n", folder.model().c_str(), id.c_str());
  } else if (code == kStopped) {
    std::printf("resume: bitctl resume %s\n", id.c_str());
  } else {
    print_log_tail(folder, history.attempt);
    std::fprintf(stderr, "bitctl: %s\n", visible_text(history.pulse.message).c_str());
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
  std::printf("run %s\n", folder.path().c_str());
  std::fflush(stdout);
  EventLoop loop;
  Console console(loop, config, show.plain);
  Supervisor supervisor(loop, std::move(run), config, std::move(signals),
                        {[&](const History& history, const Json& row) { console.on_row(history, row); },
                         [&](const std::string& text) { console.note(text); }});
  const auto code = supervisor.run();
  console.close();
  flush_log();
  if (!code) return complain(code.error(), kOwnFailure);
  print_what_next(folder, supervisor.history(), *code);
  return *code;
}

}  // namespace bitctl
