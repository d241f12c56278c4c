#include <fmt/format.h>

#include "base/exit_code.h"
#include "base/install_layout.h"
#include "commands/commands.h"
#include "commands/supervised.h"
#include "launch/processes.h"
#include "launch/scope.h"
#include "run/create_run.h"

namespace bitctl {
namespace {

struct ResumeOptions {
  std::string run;
  std::vector<std::string> overrides;
  ShowOptions show;
};

int resume(const ResumeOptions& options) {
  const auto folder = find_run(options.run, absolute_path("."));
  if (!folder) return complain(folder.error(), kNoSuchRun);
  const auto config = load_config(folder->config(), options.overrides, current_environment());
  if (!config) return complain(config.error(), kOwnFailure);
  enter_scope_if_needed();
  return supervise(*config, options.show, [&]() -> Result<HeldRun> {
    auto run = hold_run(*folder, *config, [](const std::string& holder) {
      std::fprintf(stderr, "bitctl: waiting until the dead supervisor's writer has saved: %s\n",
                   holder.c_str());
    });
    if (!run) return run;
    if (const int swept = sweep_leftovers(folder->path()); swept > 0)
      std::fprintf(stderr, "bitctl: ended %d processes that this run had left behind\n", swept);
    if (const auto left = marked_processes(folder->path()); !left.empty())
      return fail(ErrorKind::locked, "what is left of this run " + unkillable_tree(left).reason +
                                         "; nothing is started beside it");
    return run;
  });
}

}  // namespace

void add_resume_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<ResumeOptions>();
  CLI::App* command =
      app.add_subcommand("resume", "Go on with a run that was stopped or died, from its newest checkpoint");
  add_run_argument(*command, options->run);
  command->add_option("--set", options->overrides, "Override a field of the run's config")
      ->allow_extra_args(false);
  command->add_flag("-d,--detach", options->show.detach,
                    "Go on in the background; `bitctl attach` shows it again");
  command->add_flag("--plain", options->show.plain, "One line an event also on a terminal");
  command->callback([options, &action] { action = [options] { return resume(*options); }; });
}

}  // namespace bitctl
