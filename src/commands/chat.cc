#include "commands/commands.h"

namespace bitctl {

void add_chat_command(CLI::App&, Action&) {}

}  // namespace bitctl
