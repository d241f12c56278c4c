// Which checkpoints stay. Pure: what lies there and the policy in, what goes out.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/file_ops.h"
#include "base/result.h"

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
  bool valid = false;            // the manifest reads and all sizes match
  std::optional<double> metric;  // of keep_best
  bool non_finite = false;       // such a step is never "best"
};

// The steps to delete, oldest first. Entries that are not valid neither count nor go; the steps in `in_use`
// (the one resumed from, say) stay; the newest valid one always stays.
std::vector<uint64_t> steps_to_delete(const std::vector<RetentionEntry>& entries,
                                      const RetentionPolicy& policy, const std::set<uint64_t>& in_use);

// Looks at the folder, decides, deletes. Under the exclusive .lock. Returns the deleted steps; what could not
// be deleted is tried again next time.
std::vector<uint64_t> retain(const std::string& checkpoints, const RetentionPolicy& policy,
                             const std::set<uint64_t>& in_use, FileOps& ops = system_file_ops());

}  // namespace bitctl
