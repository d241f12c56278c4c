// What a run is doing, as its history and the kernel tell it together.
#pragma once

#include <string>

#include "run/history.h"
#include "run/run_folder.h"

namespace bitctl {

// The history's state ("new", "running", "waiting", "stopped", "done", "failed"), or where its supervisor is
// gone: "saving" while the writer it left behind still holds the run, "dead" where it had no last word.
std::string state_of_run(const RunFolder& folder, const History& history);

// A supervisor, or the writer of a dead one, is at work.
bool is_in_progress(const RunFolder& folder, const History& history);

// "stopped at step 480 (resumable); `bitctl resume demo-…` goes on": how a run that is over ended, and what
// to do.
std::string describe_the_end(const RunFolder& folder, const History& history);

}  // namespace bitctl
