// What one training run is to be: the checked config, every default filled in (here, and nowhere else), every
// path absolute. The member names are the config's own keys.
#pragma once

#include <chrono>
#include <csignal>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "config/environment.h"

namespace bitctl {

enum class ProgressSource { automatic, hook, pulse, none };
enum class RestartPolicy { never, on_failure };
enum class BestMode { min, max };
enum class NanAction { warn, stop, rollback };

struct CheckpointInterval {  // steps, or a time, or (both zero) automatic
  int64_t steps = 0;
  Duration time{};
  bool is_automatic() const { return steps == 0 && time == Duration::zero(); }
  bool operator==(const CheckpointInterval&) const = default;
};

struct KeepBest {
  std::string metric;
  BestMode mode = BestMode::min;
  int count = 1;
};

struct RunConfig {
  std::string source;  // the config file; empty where the run was started from a command
  std::string name;
  std::map<std::string, std::string> labels{{"profile", "Unknown"}, {"dataset", "Unknown"}};
  std::string workdir;

  struct Run {  // exactly one of command, script and shell is set
    std::vector<std::string> command;
    std::string script;
    std::vector<std::string> args;  // the script's; a map has become flags
    std::string python;             // set with script
    std::string shell;
    Environment env;
    std::string env_file;
    Environment env_from_file;  // what it held; `env` wins over it
    std::vector<std::string> env_required;
    bool hook = true;  // frameworks that the script imports report and save without a line in it
  } run;

  struct Output {
    std::string dir;  // the folder of the run folders
  } output;

  struct Progress {
    ProgressSource source = ProgressSource::automatic;
    std::string file;  // set with pulse
  } progress;

  struct Checkpoints {
    CheckpointInterval every;
    int keep_last = 3;
    std::optional<KeepBest> keep_best;
    int64_t keep_every = 0;  // steps; 0: off
  } checkpoints;

  struct Restart {
    RestartPolicy policy = RestartPolicy::on_failure;
    int max = 3;  // attempts without a higher complete snapshot
    Duration backoff = std::chrono::seconds(1);
    Duration backoff_max = std::chrono::seconds(60);
    std::vector<int> never_on{2, 126, 127};
    bool warm = true;  // a spare interpreter waits for the next attempt, where one can
  } restart;

  struct Stop {
    int signal = SIGTERM;
    std::optional<Duration> grace;  // nothing: max(30 s, 3 × the longest save)
  } stop;

  struct Watchdog {
    bool stall_off = false;
    std::optional<Duration> stall;  // nothing: automatic
    NanAction nan = NanAction::warn;
  } watchdog;

  struct Limits {
    std::optional<Duration> time;
  } limits;

  Secrets secrets;  // what must never be written down or shown; see mask_secrets
};

// Reads and checks the config. `overrides` are "KEY=VALUE" as for --set. Every path is taken relative to the
// file's folder. The error's message holds all problems, one line each: "config.yaml:12:5: <what>", and never
// the value of a secret. Blocks only for small reads; nothing is created.
Result<RunConfig> load_config(const std::string& path, const std::vector<std::string>& overrides,
                              const Environment& environment);

// `bitctl train -- python train.py --lr 1e-3`: the defaults around a command that runs in `cwd` and keeps its
// runs there. Its name is that of the script, else of the program.
Result<RunConfig> config_from_command(const std::vector<std::string>& argv, const std::string& cwd);

bool is_run_name(const std::string& name);           // ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$
std::string safe_run_name(const std::string& text);  // the nearest run name

// The config with everything filled in; given back to `bitctl train` it means the same. Secrets are written
// as ${NAME} and come from the environment again.
std::string effective_yaml(const RunConfig& config);

// What the trainer gets beside bitctl's own environment.
Environment trainer_environment(const RunConfig& config);

// The trainer's command line; {run_dir} and {name} are filled in.
std::vector<std::string> trainer_argv(const RunConfig& config, const std::string& run_dir);

// What `bitctl train --dry-run` prints: effective_yaml, and as comments the command line ready for a shell,
// the program that will be started, and where the runs go.
std::string dry_run_text(const RunConfig& config);

// Words as a shell would read them back.
std::string shell_quoted(const std::vector<std::string>& words);

}  // namespace bitctl
