// Removing the folders of runs that are over.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "run/run_folder.h"

namespace bitctl {

struct PruneRule {  // a run goes where either of them says so
  std::optional<Duration> older_than;
  std::optional<size_t> keep;  // the newest so many stay
};

// Which of these runs, newest first, the rule takes, by their ages (time since the last sign of life).
std::vector<size_t> pruned_by(const PruneRule& rule, const std::vector<Duration>& ages);

// Since the last row of its history; where it has none, since it was made.
Duration age_of_run(const RunFolder& folder, Wall now);

// What the folder takes on its disk; hard links count once.
uint64_t disk_usage(const std::string& folder);

// Takes the run's lock and holds it to the end. The folder is renamed aside before anything in it is deleted,
// so that a deletion which is cut short leaves no half of a run: clear_leftovers() ends it. Error::locked
// where the run is in progress, Error::invalid where the folder is no run's.
Status remove_run(const RunFolder& folder);

// Deletes what interrupted removals left in a folder of runs; returns the bytes freed.
uint64_t clear_leftovers(const std::string& runs);

}  // namespace bitctl
