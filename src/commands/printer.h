// What a supervisor shows. A terminal or a pipe that nobody reads stalls whoever writes to it, and a
// supervisor must not stall: a thread of its own writes, and the newest panel replaces one that was not drawn
// yet.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/terminal_info.h"

namespace bitctl {

class Printer {
 public:
  Printer();
  // Waits for what is still to be printed, but not for ever: a stalled reader gets two seconds.
  ~Printer();

  // Text that stays, above the panel, to STDOUT_FILENO or STDERR_FILENO. Never waits; of more than a thousand
  // unprinted texts the oldest are left out.
  void print(int fd, std::string text);
  // The panel as it is now; on standard output.
  void draw(std::vector<std::string> lines, const TerminalInfo& terminal);
  // It stays as it is; what is printed from here on comes below it.
  void leave_panel();

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;  // the thread's, too, which may outlive us
};

}  // namespace bitctl
