// What `train` and `resume` share: the supervisor, in the foreground with what the user sees of it, or in the
// background.
#pragma once

#include <functional>
#include <string>

#include "base/event_loop.h"
#include "config/run_config.h"
#include "run/create_run.h"

namespace bitctl {

struct ShowOptions {
  bool plain = false;   // lines also on a terminal
  bool detach = false;  // in the background
};

// Takes the locks of the run to supervise; may wait, and Ctrl-C then ends the command. A failure is for the
// user.
using TakeRun = std::function<Result<HeldRun>()>;

// Supervises until the run has ended, and returns its exit code. With show.detach that happens in a process
// and session of its own: here this returns as soon as the first attempt has been started (kOk), or the run
// has ended before (its exit code; what there is to say about it was said on stderr). Call it before any
// thread exists.
int supervise(const RunConfig& config, const ShowOptions& show, const TakeRun& take_run);

}  // namespace bitctl
