// A training as people see it. Pure: a status and what else is known go in, text comes out. The lines are
// safe for a terminal whatever the trainer wrote, and fit its width; only the reason of an error, which is
// the last thing shown, may be longer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/terminal_info.h"
#include "pulse/status.h"

namespace bitctl {

// What stays the same during a run; from run.json, since PULSE holds no context.
struct RunLabels {
  std::string profile = "Unknown";
  std::string dataset = "Unknown";
};

// What only the supervisor knows.
struct RunFacts {
  std::optional<double> steps_per_second;
  std::optional<Duration> eta;
  std::string last_checkpoint;  // "step 120, 12s ago (every 4m10s)"
};

// The panel: one line an element, without newlines.
std::vector<std::string> panel_lines(const PulseStatus& status, const RunLabels& labels, int64_t now,
                                     const TerminalInfo& terminal, const RunFacts& facts = {});

// The same in one line, for logs and pipes.
std::string event_line(const PulseStatus& status, int64_t now);

// "3s ago", "2m ago"; "0s ago" where the timestamp lies in the future.
std::string age_text(int64_t timestamp, int64_t now);

// A panel that is drawn over itself; gives the text to send to the terminal. Its lines must fit the width.
class Panel {
 public:
  std::string draw(std::vector<std::string> lines, const TerminalInfo& terminal);
  // Takes it off the screen, so that a line can be printed in its place.
  std::string erase();

 private:
  size_t drawn_ = 0;
};

}  // namespace bitctl
