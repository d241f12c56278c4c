#include "commands/commands.h"

namespace bitctl {

void add_pulse_command(CLI::App&, Action&) {}

}  // namespace bitctl
