#include <cstdio>

#include "base/exit_code.h"
#include "base/install_layout.h"
#include "base/visible_text.h"
#include "commands/commands.h"
#include "commands/control.h"
#include "run/history.h"

namespace bitctl {
namespace {

struct StopOptions {
  std::string run;
  bool now = false;
};

int stop(const StopOptions& options) {
  const auto folder = find_run(options.run, absolute_path("."));
  if (!folder) return complain(folder.error(), kNoSuchRun);
  auto control = ControlConnection::open(*folder);
  if (!control) return complain(control.error(), kFailed);
  std::printf("stopping %s\n", folder->id().c_str());
  std::fflush(stdout);
  if (auto status = control->ask({{"type", "stop"}, {"now", options.now}}); !status)
    return complain(status.error(), kFailed);
  control->wait_for_the_end();
  const auto history = read_history(folder->events());
  if (!history) return complain(history.error(), kFailed);
  std::printf("%s\n", visible_text(history->pulse.message).c_str());
  return history->state == "stopped" || history->state == "done" ? kOk : kFailed;
}

}  // namespace

void add_stop_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<StopOptions>();
  CLI::App* command = app.add_subcommand("stop", "Stop a run at its next step boundary, with a checkpoint");
  add_run_argument(*command, options->run);
  command->add_flag("--now", options->now, "Kill it; what it did since the last snapshot is lost");
  command->callback([options, &action] { action = [options] { return after_output(stop(*options)); }; });
}

}  // namespace bitctl
