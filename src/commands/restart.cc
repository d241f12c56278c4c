#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>

#include "base/exit_code.h"
#include "base/install_layout.h"
#include "commands/commands.h"
#include "commands/control.h"
#include "run/history_reader.h"
#include "run/run_state.h"

namespace bitctl {
namespace {

constexpr auto kLookEvery = std::chrono::milliseconds(20);

struct RestartOptions {
  std::string run;
  bool now = false;
};

// Until there is an attempt after number `before`, or the run is over.
int await_next_attempt(const RunFolder& folder, HistoryReader& reader, int before) {
  while (true) {
    // Asked before the reading, so that the last words are read after it.
    const bool over = !is_in_progress(folder, reader.history());
    if (auto status = reader.read(); !status) return complain(status.error(), kFailed);
    const History& history = reader.history();
    if (history.attempt > before && history.state == "running") {
      fmt::print("attempt {} started\n", history.attempt);
      return kOk;
    }
    if (over)
      return complain(
          {ErrorKind::invalid, fmt::format("no attempt followed: {}", describe_the_end(folder, history))},
          kFailed);
    std::this_thread::sleep_for(kLookEvery);
  }
}

int restart(const RestartOptions& options) {
  const auto folder = find_run(options.run, absolute_path("."));
  if (!folder) return complain(folder.error(), kNoSuchRun);
  auto control = ControlConnection::open(*folder);
  if (!control) return complain(control.error(), kFailed);
  HistoryReader reader(*folder);
  if (auto status = reader.read(); !status) return complain(status.error(), kFailed);
  const int before = reader.history().attempt;
  if (auto status = control->ask({{"type", "restart"}, {"now", options.now}}); !status)
    return complain(
        {status.error().kind, fmt::format("cannot restart {}: {}", folder->id(), status.error().message)},
        kFailed);
  fmt::print("restarting {}{}\n", folder->id(), options.now ? "" : " at its next step boundary");
  std::fflush(stdout);
  return await_next_attempt(*folder, reader, before);
}

}  // namespace

void add_restart_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<RestartOptions>();
  CLI::App* command = app.add_subcommand(
      "restart",
      "End the attempt at its next step boundary, with a checkpoint, and start the next one at once");
  add_run_argument(*command, options->run);
  command->add_flag("--now", options->now, "Kill the attempt; what it did since the last snapshot is lost");
  command->callback([options, &action] { action = [options] { return after_output(restart(*options)); }; });
}

}  // namespace bitctl
