#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <memory>

#include "base/event_loop.h"
#include "base/exit_code.h"
#include "base/install_layout.h"
#include "base/log.h"
#include "base/replace_file.h"
#include "base/strict_json.h"
#include "base/terminal_info.h"
#include "base/text.h"
#include "base/visible_text.h"
#include "commands/commands.h"
#include "pulse/follow.h"
#include "pulse/view.h"
#include "run/explain_run.h"
#include "run/history.h"
#include "run/run_folder.h"
#include "run/run_labels.h"

namespace bitctl {
namespace {

struct StatusOptions {
  std::string run;
  bool follow = false;
  bool json = false;
  bool verbose = false;
  std::optional<Duration> interval = kFollowInterval;
  std::optional<Duration> timeout;
};

// RUN as people type it: nothing, a run, or anybody's PULSE file.
Result<std::string> pulse_path(const std::string& run) {
  std::error_code error;
  const auto type = std::filesystem::status(run, error).type();
  const bool file =
      type != std::filesystem::file_type::not_found && type != std::filesystem::file_type::directory;
  if (run.ends_with(".json") || (!run.empty() && file)) return run;
  const std::string here = absolute_path(".");
  auto found = find_run(run, here);
  if (found) return found->pulse();
  // No run yet is no error: this is where the first one will be.
  if (run.empty() && found.error().kind == ErrorKind::not_found)
    return RunFolder(here + "/runs/latest").pulse();
  return forward(std::move(found));
}

int exit_code_of(const std::optional<FollowEnd>& end) {
  if (end == FollowEnd::error) return kStatusError;
  if (end == FollowEnd::stale) return kStatusStale;
  return kOk;
}

// Escaped down to ASCII: nothing in a message can steer the terminal that it may be printed on.
std::string json_line(const PulseStatus& status) {
  const Json event = {{"event", "training_status_update"},
                      {"status", parse_strict_json(to_file_bytes(status)).value()}};
  return event.dump(-1, ' ', true) + "\n";
}

void say(const std::vector<FollowLog>& log) {
  for (const FollowLog& line : log) spdlog::log(line.level, "{}", line.text);
}

bool has_something_to_say(const std::vector<FollowLog>& log) {
  return std::any_of(log.begin(), log.end(),
                     [](const FollowLog& line) { return spdlog::should_log(line.level); });
}

RunLabels labels_beside(const std::string& pulse) { return read_labels(folder_of(pulse) + "/run.json"); }

// Of a run that bitctl gave up: where it broke, what to try first, and who knows more.
std::string short_explanation(const std::string& pulse) {
  const RunFolder folder(folder_of(absolute_path(pulse)));
  const auto known = explain_run(folder);
  if (!known || known->state != "failed") return {};
  std::string text;
  if (!known->frame.empty()) text += fmt::format("  in {}\n", visible_text(known->frame));
  if (!known->next.empty()) text += fmt::format("  try: {}\n", visible_text(known->next.front()));
  return text + fmt::format("  more: bitctl why {}\n", folder.id());
}

// Whether the next attempt would start warm, of a run that goes on.
std::string spare_line(const std::string& pulse) {
  const auto history = read_history(RunFolder(folder_of(absolute_path(pulse))).events());
  if (!history || history->spare.empty()) return {};
  return fmt::format("  spare: {}\n", visible_text(history->spare));
}

int print_once(const std::string& path, bool json) {
  const Wall wall = system_clock().wall();
  const int64_t now = unix_seconds(wall);
  const PulseRead read = read_pulse(path);
  const FollowStep step = FollowState().step(system_clock().monotonic(), wall, read);
  say(step.log);
  if (std::holds_alternative<PulseDamaged>(read)) return kStatusDamaged;
  const PulseStatus status = step.emit.value_or(idle_status(now));
  std::string text = json ? json_line(status)
                          : fmt::format("{}\n", fmt::join(panel_lines(status, labels_beside(path), now,
                                                                      terminal_info(STDOUT_FILENO)),
                                                          "\n"));
  if (!json && status.status == TrainingState::error) text += short_explanation(path);
  if (!json && status.status == TrainingState::running) text += spare_line(path);
  const Status written = write_all(STDOUT_FILENO, text, "stdout");
  if (!written && written.error().errno_value != EPIPE) {
    spdlog::error("Failed to emit status: {}", written.error().message);
    return kOwnFailure;
  }
  return exit_code_of(step.end);
}

// One `status --follow`: the loop, what it draws, and how it ends.
class StatusFollow {
 public:
  StatusFollow(std::string path, const StatusOptions& options)
      : path_(std::move(path)),
        options_(options),
        draws_(!options.json && terminal_info(STDOUT_FILENO).interactive),
        follower_(loop_, path_, *options.interval, [this](const FollowStep& step) { on_step(step); }) {}

  int run() {
    const Fd interrupt = block_and_watch_signals({SIGINT});
    loop_.watch(interrupt.get(), EPOLLIN, [this](uint32_t) { end(kInterrupted); });
    // A pipe whose reader has gone says so at once; a file refuses to be watched, and needs no watching.
    loop_.watch(STDOUT_FILENO, 0, [this](uint32_t) { end(kOk); });
    if (options_.timeout) loop_.call_after(*options_.timeout, [this] { give_up(); });
    follower_.start();
    if (!follower_.state().last() && ::isatty(STDERR_FILENO))
      fmt::print(stderr, "waiting for {}\n", visible_text(path_));
    if (draws_) tick();
    while (!ended_) loop_.run_once();
    if (code_ == kStatusError && !options_.json) show(short_explanation(path_));
    return code_;
  }

 private:
  void end(int code) {
    ended_ = true;
    code_ = code;
  }

  void give_up() {
    show(panel_.erase());
    end(complain({ErrorKind::timeout, fmt::format("{}: the training has not ended within {}", path_,
                                                  format_duration(*options_.timeout))},
                 kFailed));
  }

  void on_step(const FollowStep& step) {
    if (has_something_to_say(step.log)) show(panel_.erase());
    say(step.log);
    if (draws_)
      draw();
    else if (step.emit)
      show(options_.json ? json_line(*step.emit) : event_line(*step.emit, now()) + "\n");
    if (step.end && !ended_) end(exit_code_of(step.end));
  }

  // The age of a status grows while nothing else changes.
  void tick() {
    draw();
    loop_.call_after(std::chrono::seconds(1), [this] { tick(); });
  }

  void draw() {
    const auto& status = follower_.state().last();
    const TerminalInfo terminal = terminal_info(STDOUT_FILENO);
    if (status) show(panel_.draw(panel_lines(*status, labels_beside(path_), now(), terminal), terminal));
  }

  void show(const std::string& text) {
    const Status written = write_all(STDOUT_FILENO, text, "stdout");
    if (written) return;
    if (written.error().errno_value == EPIPE) return end(kOk);
    spdlog::warn("Failed to emit status: {}", written.error().message);
  }

  static int64_t now() { return unix_seconds(system_clock().wall()); }

  std::string path_;
  const StatusOptions& options_;
  bool draws_;
  EventLoop loop_;
  Follower follower_;
  Panel panel_;
  bool ended_ = false;
  int code_ = kOk;
};

int status(const StatusOptions& options) {
  if (options.verbose) log_to_stderr("debug");
  const auto path = pulse_path(options.run);
  if (!path) return complain(path.error(), path.error().kind == ErrorKind::io ? kOwnFailure : kNoSuchRun);
  if (options.verbose)
    if (const auto history = read_history(folder_of(*path) + "/events.jsonl");
        history && !history->isolation.empty())
      spdlog::debug("isolation: {}", history->isolation);
  std::signal(SIGPIPE, SIG_IGN);
  return options.follow ? StatusFollow(*path, options).run() : print_once(*path, options.json);
}

}  // namespace

void add_status_command(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("status", "Shows how a training is doing, once or as it goes on");
  const auto options = std::make_shared<StatusOptions>();
  command->add_option(
      "RUN", options->run,
      "a run id or its beginning, a run folder, or a training_status.json; the newest run where "
      "it is left out");
  command->add_flag("-f,--follow", options->follow, "go on until the training ends");
  command->add_flag("--json", options->json, "one JSON object a line");
  command->add_flag("--verbose", options->verbose, "say on stderr what is read and told");
  add_duration_option(*command, "--interval", options->interval,
                      "with --follow: read at least this often (2s)");
  add_duration_option(*command, "--timeout", options->timeout,
                      "with --follow: give up after this long, with exit code 1");
  command->footer(
      "Exit codes: 0 running, done, idle or no training; 3 error; 4 stale (running, and silent for more than "
      "60 s);"
      "\n5 the file is damaged; 6 no such run; 130 ended by Ctrl-C\n");
  command->callback([&action, options] { action = [options] { return status(*options); }; });
}

}  // namespace bitctl
