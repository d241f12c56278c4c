// Making a run: its locks, its folder, what is written into it once.
#pragma once

#include <functional>
#include <string>

#include "base/clock.h"
#include "base/lock.h"
#include "base/result.h"
#include "config/run_config.h"
#include "run/run_folder.h"

namespace bitctl {

struct HeldRun {
  RunFolder folder;
  FileLock name_lock;  // one training of that name per runs folder
  FileLock run_lock;   // who holds it writes PULSE and events
};

// Takes the name's lock, makes <output.dir>/<name>-<YYYYmmdd-HHMMSS> with config.yaml and run.json, points
// runs/latest at it and links it from the user's list. Error::locked: "Training already in progress: …" with
// the holder.
Result<HeldRun> create_run(const RunConfig& config, const std::string& bitctl_version, Wall now);

// For `bitctl resume`: the locks of a run that stands. A live supervisor is Error::locked at once; where it
// is dead and its writer still saves, this waits as long as that takes and calls `on_wait` with the holder
// once.
Result<HeldRun> hold_run(const RunFolder& folder, const RunConfig& config,
                         const std::function<void(const std::string&)>& on_wait);

}  // namespace bitctl
