#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <filesystem>

#include "base/exit_code.h"
#include "base/install_layout.h"
#include "base/replace_file.h"
#include "commands/commands.h"
#include "commands/supervised.h"
#include "config/run_config.h"
#include "launch/scope.h"
#include "run/create_run.h"
#include "supervise/leftovers.h"

namespace bitctl {
namespace {

struct TrainOptions {
  std::string config;
  std::vector<std::string> overrides;
  std::string name;
  std::vector<std::string> trailing;  // after "--": the command, or further arguments of the configured one
  bool dry_run = false;
  bool no_restart = false;
  ShowOptions show;
};

Result<RunConfig> config_of(const TrainOptions& options) {
  if (options.config.empty() && options.trailing.empty())
    return fail(ErrorKind::invalid,
                "nothing to train: give a config file (bitctl train config.yaml) or a command (bitctl train "
                "-- python train.py)");
  Result<RunConfig> config = options.config.empty()
                                 ? config_from_command(options.trailing, absolute_path("."))
                                 : load_config(options.config, options.overrides, current_environment());
  if (!config) return config;
  if (options.config.empty() && !options.overrides.empty())
    return fail(ErrorKind::invalid, "--set changes a config file, and none was given");
  if (!options.config.empty() && !options.trailing.empty()) {
    if (!config->run.shell.empty())
      return fail(ErrorKind::invalid, "run.shell takes no further arguments after --");
    auto& words = config->run.script.empty() ? config->run.command : config->run.args;
    words.insert(words.end(), options.trailing.begin(), options.trailing.end());
  }
  if (!options.name.empty()) {
    if (!is_run_name(options.name))
      return fail(ErrorKind::invalid,
                  "--name: letters, digits, '.', '_' and '-', at most 64, a letter or digit first");
    config->name = options.name;
  }
  if (options.no_restart) config->restart.policy = RestartPolicy::never;
  return config;
}

int train(const TrainOptions& options) {
  const auto config = config_of(options);
  if (!config) return complain(config.error(), kOwnFailure);
  if (options.dry_run) {
    std::fputs(dry_run_text(*config).c_str(), stdout);
    return after_output(kOk);
  }
  enter_scope_if_needed();
  return supervise(*config, options.show, [&]() -> Result<HeldRun> {
    auto run = create_run(*config, BITCTL_VERSION, system_clock().wall());
    if (!run) return run;
    if (const int swept = sweep_dead_runs(folder_of(run->folder.path()), config->name); swept > 0)
      std::fprintf(stderr, "bitctl: ended %d processes that an earlier run of '%s' had left behind\n", swept,
                   config->name.c_str());
    return run;
  });
}

}  // namespace

void add_train_command(CLI::App& app, Action& action, const std::vector<std::string>& trailing) {
  auto options = std::make_shared<TrainOptions>();
  options->trailing = trailing;
  CLI::App* command = app.add_subcommand("train", "Start a training and keep it alive until it has ended");
  command->add_option("CONFIG", options->config, "The config file; without one, a command after --");
  command
      ->add_option("--set", options->overrides,
                   "Override a field of the config: --set run.env.LR=1e-4 (may be repeated)")
      ->allow_extra_args(false);
  command->add_option("--name", options->name,
                      "Name of the run; a sibling of one that is in progress needs its own");
  command->add_flag("--dry-run", options->dry_run,
                    "Print the effective config and the command line, start nothing");
  command->add_flag("--no-restart", options->no_restart, "As restart.policy: never");
  command->add_flag("-d,--detach", options->show.detach,
                    "Go on in the background; `bitctl attach` shows it again");
  command->add_flag("--plain", options->show.plain, "One line an event also on a terminal");
  command->callback([options, &action] { action = [options] { return train(*options); }; });
}

}  // namespace bitctl
