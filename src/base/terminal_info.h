// What stands behind a descriptor: a terminal that can be drawn on, or a file or pipe that gets plain lines.
#pragma once

#include <cstddef>

namespace bitctl {

struct TerminalInfo {
  bool interactive = false;  // a terminal that understands escape sequences
  bool color = false;        // interactive, and NO_COLOR does not forbid it (https://no-color.org)
  size_t columns = 1 << 20;  // far more than any line where there is no terminal
  size_t rows = 1 << 20;
};

// Asks the kernel each time: a window changes its size.
TerminalInfo terminal_info(int fd);

}  // namespace bitctl
