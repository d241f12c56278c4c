// bitctl: launches a PyTorch training, keeps it alive, never loses its work, and lets people talk to the
// model.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string_view>

#include <CLI/CLI.hpp>

#include "base/exit_code.h"
#include "base/log.h"
#include "commands/commands.h"

namespace {

std::string exit_codes() {
  std::string text =
      "Exit codes (a trainer's own, and 128+N where signal N ended it, pass through `bitctl train`):\n";
  for (const auto& [code, meaning] : bitctl::kExitCodeMeanings)
    text += fmt::format("  {:<4} {}\n", static_cast<int>(code), meaning);
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace bitctl;
  try {
    CLI::App app(
        "Launches a PyTorch training, keeps it alive, never loses its work, and lets you talk to the model.",
        "bitctl");
    app.set_version_flag("--version", BITCTL_VERSION);
    app.require_subcommand(1);
    app.footer(exit_codes());
    Action action;
    // What stands behind "--" is a command of the user's, none of our options.
    const auto separator = std::find(argv, argv + argc, std::string_view("--"));
    const int own = static_cast<int>(separator - argv);
    const std::vector<std::string> trailing(separator == argv + argc ? separator : separator + 1,
                                            argv + argc);
    add_train_command(app, action, trailing);
    add_resume_command(app, action);
    add_attach_command(app, action);
    add_stop_command(app, action);
    add_restart_command(app, action);
    add_logs_command(app, action);
    add_ls_command(app, action);
    add_why_command(app, action);
    add_prune_command(app, action);
    add_checkpoints_command(app, action);
    add_pulse_command(app, action);
    add_status_command(app, action);
    add_doctor_command(app, action);
    add_schema_command(app, action);
    add_chat_command(app, action);
    try {
      app.parse(own, argv);
    } catch (const CLI::ParseError& error) {
      return app.exit(error) == 0 ? kOk : kUsage;
    }
    log_to_stderr();
    return action();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bitctl: %s\n", error.what());
    return kOwnFailure;
  }
}
