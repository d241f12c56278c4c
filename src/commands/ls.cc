#include <fmt/format.h>

#include <cstdio>

#include "base/exit_code.h"
#include "base/install_layout.h"
#include "base/strict_json.h"
#include "commands/commands.h"
#include "pulse/view.h"
#include "run/history.h"
#include "run/run_folder.h"
#include "run/run_state.h"

namespace bitctl {
namespace {

struct LsOptions {
  bool all = false;
  bool json = false;
};

std::string progress_of(const History& history) {
  if (history.total_steps > 0) return fmt::format("{}/{}", history.step, history.total_steps);
  return history.step > 0 ? std::to_string(history.step) : "-";
}

std::string loss_of(const History& history) {
  return history.has_loss ? fmt::format("{:.4f}", history.pulse.loss) : "-";
}

Json summary(const RunFolder& folder, const History& history) {
  return {{"id", folder.id()},
          {"path", folder.path()},
          {"state", state_of_run(folder, history)},
          {"attempt", history.attempt},
          {"step", history.step},
          {"total_steps", history.total_steps},
          {"epoch", history.pulse.epoch},
          {"total_epochs", history.pulse.total_epochs},
          {"loss", history.pulse.loss},
          {"checkpoint_step", history.checkpoint_step ? Json(*history.checkpoint_step) : Json(nullptr)},
          {"message", history.pulse.message},
          {"timestamp", history.pulse.timestamp}};
}

int ls(const LsOptions& options) {
  const int64_t now = unix_seconds(system_clock().wall());
  bool header = false;
  for (const RunFolder& folder : list_runs(absolute_path("."), options.all)) {
    const auto history = read_history(folder.events());
    const History known = history ? *history : History{};
    if (options.json) {
      std::printf("%s\n", dump_line(summary(folder, known)).c_str());
      continue;
    }
    if (!std::exchange(header, true))
      fmt::print("{:<40} {:<8} {:>14} {:>9} {:>9}\n", "RUN", "STATE", "STEP", "LOSS", "AGE");
    fmt::print("{:<40} {:<8} {:>14} {:>9} {:>9}\n", folder.id(), state_of_run(folder, known),
               progress_of(known), loss_of(known),
               known.pulse.timestamp > 0 ? age_text(known.pulse.timestamp, now) : "-");
  }
  if (!header && !options.json)
    std::printf("no runs here%s\n", options.all ? "" : "; --all shows those of every folder");
  return kOk;
}

}  // namespace

void add_ls_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<LsOptions>();
  CLI::App* command = app.add_subcommand("ls", "The runs of this folder, newest first");
  command->add_flag("--all", options->all, "Of every folder");
  command->add_flag("--json", options->json, "One JSON object a line");
  command->callback([options, &action] { action = [options] { return after_output(ls(*options)); }; });
}

}  // namespace bitctl
