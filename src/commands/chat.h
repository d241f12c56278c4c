// The chat command with whatever opens its models; tests open models of their own.
#pragma once

#include "chat/options.h"
#include "commands/commands.h"

namespace bitctl {

void add_chat_command(CLI::App& app, Action& action, ModelOpener opener);

}  // namespace bitctl
