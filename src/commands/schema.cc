#include "commands/commands.h"

namespace bitctl {

void add_schema_command(CLI::App&, Action&) {}

}  // namespace bitctl
