// Every exit code of bitctl, in one place; the README prints this table. A trainer's own code (1-124) and
// 128+N for a trainer ended by signal N pass through `bitctl train`.
#pragma once

namespace bitctl {

enum ExitCode : int {
  kOk = 0,             // done; for readers: running, done, idle or no run
  kFailed = 1,         // the command's own answer is "no": a checkpoint is damaged, a model failed
  kUsage = 2,          // wrong arguments
  kStatusError = 3,    // status: the run ended in an error
  kStatusStale = 4,    // status: running, and silent for more than 60 s
  kStatusDamaged = 5,  // status: the file is there and cannot be trusted
  kNoSuchRun = 6,      // no run of that name
  kStopped = 75,       // stopped on request or by limits.time; resumable
  kHang = 124,         // the trainer hung and the restart budget is used up
  kOwnFailure = 125,   // bitctl itself could not do it: bad config, lock held, no disk
  kNotExecutable = 126,
  kNotFound = 127,
  kInterrupted = 130,  // a reader or a chat ended by Ctrl-C
};

}  // namespace bitctl
