// A program's short answer: what it prints in a few seconds.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"
#include "launch/spawn.h"

namespace bitctl {

struct Answer {
  ExitStatus status;
  std::string line;  // the first that it printed, on stdout or stderr; at most 400 bytes
};

// Runs it in / with our environment and waits, at most `limit`. Error::timeout where it does not end by then
// (it is killed); else as of spawn().
Result<Answer> ask_program(const std::vector<std::string>& argv, Duration limit);

}  // namespace bitctl
