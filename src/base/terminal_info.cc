#include "base/terminal_info.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <string>

#include "base/environment_variable.h"

namespace bitctl {
namespace {}  // namespace

TerminalInfo terminal_info(int fd) {
  TerminalInfo terminal;
  if (!::isatty(fd)) return terminal;
  winsize size{};
  const bool known = ::ioctl(fd, TIOCGWINSZ, &size) == 0;
  terminal.columns = known && size.ws_col > 0 ? size.ws_col : 80;
  terminal.rows = known && size.ws_row > 0 ? size.ws_row : 24;
  terminal.interactive = !environment_variable("TERM").empty() && environment_variable("TERM") != "dumb";
  terminal.color = terminal.interactive && environment_variable("NO_COLOR").empty();
  return terminal;
}

}  // namespace bitctl
