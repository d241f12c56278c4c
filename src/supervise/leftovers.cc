#include "supervise/leftovers.h"

#include "base/lock.h"
#include "base/replace_file.h"
#include "launch/processes.h"
#include "run/run_folder.h"

namespace bitctl {

int sweep_dead_runs(const std::string& runs_folder, const std::string& name) {
  int swept = 0;
  for (const std::string& run : marked_run_folders()) {
    if (folder_of(run) != runs_folder || !filename_of(run).starts_with(name + "-")) continue;
    // Whoever still supervises it holds the lock; then it is none of ours.
    const auto lock =
        FileLock::acquire(RunFolder(run).pulse_lock(), FileLock::Mode::exclusive, Duration::zero());
    if (lock) swept += sweep_leftovers(run);
  }
  return swept;
}

}  // namespace bitctl
