#include "commands/commands.h"

namespace bitctl {

void add_status_command(CLI::App&, Action&) {}

}  // namespace bitctl
