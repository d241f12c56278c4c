// Which checkpoints stay. Pure: what lies there and the policy in, what goes out. Beside it the hands that
// look at the folder and delete.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/file_ops.h"
#include "base/result.h"
#include "checkpoint/manifest.h"

namespace bitctl {

struct BestMetric {
  std::string metric;  // a name in the manifest's metrics
  bool smallest = true;
  int count = 1;
};

struct RetentionPolicy {
  int keep_last = 3;  // >= 1
  std::optional<BestMetric> keep_best;
  uint64_t keep_every = 0;  // every step divisible by this stays; 0: off
};

struct RetentionEntry {
  uint64_t step = 0;
  bool valid = false;     // of this run, the manifest reads, and all sizes match
  bool verified = false;  // every byte of it is known to be good
  bool pinned = false;
  bool in_use = false;             // the one that the training went on from
  bool non_finite = false;         // such a step is never "best"
  std::optional<double> metric{};  // of keep_best
};

// The steps to delete, oldest first. Entries that are not valid neither count nor go. These stay: the last
// keep_last, the newest finite one (what watchdog.nan goes back to), the best, every keep_every-th, what is
// pinned or in use. Nothing goes unless a verified one stays.
std::vector<uint64_t> steps_to_delete(const std::vector<RetentionEntry>& entries,
                                      const RetentionPolicy& policy);

// The best first: smallest or largest metric, a tie to the newer. Without those that have no finite metric,
// hold a NaN or an infinity, or are not valid.
std::vector<uint64_t> best_steps(const std::vector<RetentionEntry>& entries, const BestMetric& best);

// What only the caller knows.
struct RetentionScope {
  std::string run;              // steps whose manifest names another run are not ours to delete
  std::set<uint64_t> in_use{};  // the one that the training went on from
  std::set<uint64_t> verified{};
};

// The metric of a manifest, where it has it as a number.
std::optional<double> metric_of(const Manifest& manifest, const std::string& name);

// The folder as it is now; only manifests are read.
std::vector<RetentionEntry> retention_entries(const std::string& checkpoints, const RetentionPolicy& policy,
                                              const RetentionScope& scope);

// The newest step whose every byte is good: as the scope knows, else read from the disk now. Nothing where
// there is none. Takes no lock; blocks for the disk.
std::optional<uint64_t> find_verified(const std::string& checkpoints, const RetentionScope& scope);

struct Retained {
  std::vector<uint64_t> deleted;
  uint64_t bytes = 0;         // that the disk got back
  std::vector<Error> failed;  // what could not be deleted; it is tried again next time
};

// Looks at the folder, decides, deletes from the oldest on, until `enough` bytes are gone. Under the
// exclusive .lock.
Retained retain(const std::string& checkpoints, const RetentionPolicy& policy, const RetentionScope& scope,
                FileOps& ops = system_file_ops(), uint64_t enough = UINT64_MAX);

// What may go where a save finds no room on the disk: all of the last but one.
RetentionPolicy under_disk_pressure(RetentionPolicy policy);

}  // namespace bitctl
