// Every exit code of bitctl, in one place; `bitctl --help` and the README print this table. A trainer's own
// code (1-124) and 128+N for a trainer ended by signal N pass through `bitctl train`.
#pragma once

namespace bitctl {

enum ExitCode : int {
  kOk = 0,
  kFailed = 1,
  kUsage = 2,
  kStatusError = 3,
  kStatusStale = 4,
  kStatusDamaged = 5,
  kNoSuchRun = 6,
  kStopped = 75,
  kHang = 124,
  kOwnFailure = 125,
  kNotExecutable = 126,
  kNotFound = 127,
  kInterrupted = 130,
};

struct ExitCodeMeaning {
  ExitCode code;
  const char* meaning;
};

inline constexpr ExitCodeMeaning kExitCodeMeanings[] = {
    {kOk, "done; status: running, done, idle, or nothing there yet"},
    {kFailed,
     "the answer is no: a checkpoint is damaged, a model cannot be loaded, a run is not in progress"},
    {kUsage, "wrong arguments"},
    {kStatusError, "status: the run ended in an error"},
    {kStatusStale, "status: running, and silent for more than 60 s"},
    {kStatusDamaged, "status: the file is there and cannot be trusted"},
    {kNoSuchRun, "no run of that name"},
    {kStopped, "train: stopped on request or by limits.time; `bitctl resume` goes on"},
    {kHang, "train: the trainer hung, and no restart is left"},
    {kOwnFailure, "bitctl itself could not: a bad config, a lock that is held, no disk"},
    {kNotExecutable, "train: the command cannot be executed"},
    {kNotFound, "train: the command does not exist"},
    {kInterrupted, "a reader or a chat was ended by Ctrl-C"},
};

}  // namespace bitctl
