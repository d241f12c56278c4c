#include "commands/supervised.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <optional>
#include <thread>

#include "base/exit_code.h"
#include "base/log.h"
#include "commands/background.h"
#include "commands/commands.h"
#include "commands/console.h"
#include "commands/printer.h"
#include "supervise/supervisor.h"

namespace bitctl {
namespace {

using std::chrono::milliseconds;

constexpr auto kRowsAreThereWithin = std::chrono::seconds(10);

RunLabels labels_of(const RunConfig& config) {
  return {config.labels.at("profile"), config.labels.at("dataset")};
}

Fd block_run_signals() {
  ::signal(SIGPIPE, SIG_IGN);
  return block_and_watch_signals({SIGINT, SIGTERM, SIGHUP, SIGCHLD});
}

// `let_go`: of the foreground, as soon as an attempt has been started; empty where this is it.
int hold_and_supervise(const RunConfig& config, const ShowOptions& show, const TakeRun& take_run,
                       const LetGo& let_go) {
  // Ctrl-C ends a wait for the locks; from here on it is a stop.
  auto run = take_run();
  if (!run) return complain(run.error(), kOwnFailure);
  Fd signals = block_run_signals();
  const RunFolder folder = run->folder;
  log_to_file(folder.own_log());
  std::fflush(stdout);
  Printer printer;
  EventLoop loop;
  std::optional<Console> console;
  SupervisorView view;
  if (let_go) {
    view.on_row = [&](const History&, const Json& row) {
      if (get_text(row, "kind") == "spawned") let_go(folder.path());
    };
  } else {
    printer.print(STDOUT_FILENO, fmt::format("run {}\n", folder.path()));
    console.emplace(loop, printer, labels_of(config), show.plain);
    view.on_row = [&](const History& history, const Json& row) { console->on_row(history, row); };
    view.on_notice = [&](const std::string& text) { console->note(text); };
  }
  Supervisor supervisor(loop, std::move(*run), config, std::move(signals), std::move(view));
  const auto code = supervisor.run();
  if (console) console->close();
  flush_log();
  if (!code) return complain(code.error(), kOwnFailure);
  print_what_next(printer, folder, supervisor.history(), *code);
  return *code;
}

// What comes next may be `bitctl stop`, which looks into the history for its supervisor.
void wait_for_the_rows(const RunFolder& folder, pid_t supervisor) {
  const auto deadline = std::chrono::steady_clock::now() + kRowsAreThereWithin;
  while (std::chrono::steady_clock::now() < deadline) {
    const auto history = read_history(folder.events());
    if (history && history->supervisor.pid == supervisor) return;
    std::this_thread::sleep_for(milliseconds(2));
  }
}

int say_where_it_runs(const RunFolder& folder, pid_t supervisor) {
  wait_for_the_rows(folder, supervisor);
  fmt::print("run {}\nattach: bitctl attach {}\nstop:   bitctl stop {}\n", folder.path(), folder.id(),
             folder.id());
  return after_output(kOk);
}

}  // namespace

int supervise(const RunConfig& config, const ShowOptions& show, const TakeRun& take_run) {
  if (!show.detach) return hold_and_supervise(config, show, take_run, {});
  return run_in_background(
      [&](const LetGo& let_go) { return hold_and_supervise(config, show, take_run, let_go); },
      [](pid_t pid, const std::string& path) { return say_where_it_runs(RunFolder(path), pid); });
}

}  // namespace bitctl
