#include "checkpoint/retention.h"

#include <algorithm>
#include <cmath>

#include "checkpoint/catalog.h"
#include "checkpoint/folders.h"

namespace bitctl {
namespace {

// The best `count` entries; on a tie the newer one.
std::vector<uint64_t> best_steps(const std::vector<RetentionEntry>& entries, const BestMetric& best) {
  std::vector<RetentionEntry> ranked;
  for (const RetentionEntry& e : entries)
    if (e.valid && !e.non_finite && e.metric && std::isfinite(*e.metric)) ranked.push_back(e);
  std::sort(ranked.begin(), ranked.end(), [&](const auto& a, const auto& b) {
    const double x = *a.metric;
    const double y = *b.metric;
    if (x == y) return a.step > b.step;
    return best.smallest ? x < y : x > y;
  });
  std::vector<uint64_t> steps;
  for (size_t i = 0; i < ranked.size() && i < static_cast<size_t>(best.count); ++i)
    steps.push_back(ranked[i].step);
  return steps;
}

}  // namespace

std::vector<uint64_t> steps_to_delete(const std::vector<RetentionEntry>& entries,
                                      const RetentionPolicy& policy, const std::set<uint64_t>& in_use) {
  std::vector<uint64_t> valid;
  for (const RetentionEntry& e : entries)
    if (e.valid) valid.push_back(e.step);
  std::sort(valid.begin(), valid.end());

  std::set<uint64_t> keep = in_use;
  const size_t last = static_cast<size_t>(std::max(1, policy.keep_last));
  const size_t first_kept = valid.size() > last ? valid.size() - last : 0;
  for (size_t i = first_kept; i < valid.size(); ++i) keep.insert(valid[i]);
  // What watchdog.nan goes back to.
  uint64_t newest_finite = 0;
  for (const RetentionEntry& e : entries)
    if (e.valid && !e.non_finite) newest_finite = std::max(newest_finite, e.step);
  keep.insert(newest_finite);
  if (policy.keep_best)
    for (const uint64_t step : best_steps(entries, *policy.keep_best)) keep.insert(step);
  std::vector<uint64_t> gone;
  for (const uint64_t step : valid) {
    const bool every = policy.keep_every > 0 && step % policy.keep_every == 0;
    if (!keep.contains(step) && !every) gone.push_back(step);
  }
  return gone;
}

std::vector<uint64_t> retain(const std::string& checkpoints, const RetentionPolicy& policy,
                             const std::set<uint64_t>& in_use, FileOps& ops) {
  std::vector<RetentionEntry> entries;
  for (const StepFolder& folder : step_folders(checkpoints)) {
    RetentionEntry entry{folder.step};
    if (const auto manifest = inspect_step(folder)) {
      entry.valid = true;
      entry.non_finite = !manifest->non_finite.empty();
      if (policy.keep_best)
        if (const auto value = manifest->metrics.find(policy.keep_best->metric);
            value != manifest->metrics.end() && value->is_number())
          entry.metric = value->get<double>();
    }
    entries.push_back(entry);
  }
  std::vector<uint64_t> deleted;
  for (const uint64_t step : steps_to_delete(entries, policy, in_use))
    if (remove_folder(checkpoints + "/" + step_folder_name(step), ops)) deleted.push_back(step);
  return deleted;
}

}  // namespace bitctl
