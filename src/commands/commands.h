// One file a subcommand: parse, call, print. Each adds itself to the app and, when chosen, leaves what is to
// be done.
#pragma once

#include <functional>
#include <string>

#include <CLI/CLI.hpp>

#include "base/result.h"

namespace bitctl {

using Action = std::function<int()>;  // returns the exit code

void add_pulse_command(CLI::App& app, Action& action);
void add_status_command(CLI::App& app, Action& action);
void add_schema_command(CLI::App& app, Action& action);
void add_chat_command(CLI::App& app, Action& action);

// "bitctl: <message>" on stderr, line by line; returns the code.
int complain(const Error& error, int code);

}  // namespace bitctl
