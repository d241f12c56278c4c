// What `train` and `resume` share: the supervisor in the foreground, a panel on a terminal, a line an event
// elsewhere.
#pragma once

#include <string>

#include "config/run_config.h"
#include "run/create_run.h"

namespace bitctl {

struct ShowOptions {
  bool plain = false;  // lines also on a terminal
};

// Until the run has ended; its exit code. Signals must be blocked before any thread is started:
// block_run_signals().
int supervise_in_foreground(HeldRun run, const RunConfig& config, Fd signals, const ShowOptions& show);

// SIGINT, SIGTERM, SIGHUP and SIGCHLD, as a descriptor.
Fd block_run_signals();

}  // namespace bitctl
