// One file a subcommand: parse, call, print. Each adds itself to the app and, when chosen, leaves what is to
// be done.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/clock.h"
#include "base/result.h"

namespace bitctl {

using Action = std::function<int()>;  // returns the exit code

// `trailing`: what stood behind "--" on the command line.
void add_train_command(CLI::App& app, Action& action, const std::vector<std::string>& trailing);
void add_resume_command(CLI::App& app, Action& action);
void add_stop_command(CLI::App& app, Action& action);
void add_restart_command(CLI::App& app, Action& action);
void add_attach_command(CLI::App& app, Action& action);
void add_prune_command(CLI::App& app, Action& action);
void add_why_command(CLI::App& app, Action& action);
void add_logs_command(CLI::App& app, Action& action);
void add_ls_command(CLI::App& app, Action& action);
void add_checkpoints_command(CLI::App& app, Action& action);
void add_pulse_command(CLI::App& app, Action& action);
void add_status_command(CLI::App& app, Action& action);
void add_doctor_command(CLI::App& app, Action& action);
void add_schema_command(CLI::App& app, Action& action);
void add_chat_command(CLI::App& app, Action& action);

// An option that takes a duration: "30s", "1h30m", or a plain number of seconds.
CLI::Option* add_duration_option(CLI::App& app, const std::string& name, std::optional<Duration>& out,
                                 const std::string& help);

// The argument RUN of most commands; empty means the newest run.
CLI::Option* add_run_argument(CLI::App& app, std::string& run);

// "bitctl: <message>" on stderr, line by line; returns the code.
int complain(const Error& error, int code);

// What a command that printed on stdout returns: `code`, or kOwnFailure with a line on stderr where that did
// not arrive.
int after_output(int code);

}  // namespace bitctl
