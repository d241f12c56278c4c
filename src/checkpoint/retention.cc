#include "checkpoint/retention.h"

#include <algorithm>
#include <cmath>

#include "checkpoint/catalog.h"
#include "checkpoint/folders.h"
#include "checkpoint/pins.h"

namespace bitctl {
namespace {

bool is_folder(const std::string& path) {
  struct stat st {};
  return ::lstat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

}  // namespace

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

std::vector<uint64_t> steps_to_delete(const std::vector<RetentionEntry>& entries,
                                      const RetentionPolicy& policy) {
  std::vector<uint64_t> valid;
  std::set<uint64_t> keep;
  std::optional<uint64_t> newest_finite;
  std::optional<uint64_t> newest_verified;
  for (const RetentionEntry& e : entries) {
    if (!e.valid) continue;
    valid.push_back(e.step);
    if (e.pinned || e.in_use) keep.insert(e.step);
    if (policy.keep_every > 0 && e.step % policy.keep_every == 0) keep.insert(e.step);
    if (!e.non_finite) newest_finite = std::max(newest_finite.value_or(0), e.step);
    if (e.verified) newest_verified = std::max(newest_verified.value_or(0), e.step);
  }
  if (!newest_verified) return {};
  keep.insert(*newest_verified);
  if (newest_finite) keep.insert(*newest_finite);
  std::sort(valid.begin(), valid.end());
  const size_t last = static_cast<size_t>(std::max(1, policy.keep_last));
  for (size_t i = valid.size() > last ? valid.size() - last : 0; i < valid.size(); ++i) keep.insert(valid[i]);
  if (policy.keep_best)
    for (const uint64_t step : best_steps(entries, *policy.keep_best)) keep.insert(step);
  std::erase_if(valid, [&](uint64_t step) { return keep.contains(step); });
  return valid;
}

std::optional<double> metric_of(const Manifest& manifest, const std::string& name) {
  const auto value = manifest.metrics.find(name);
  if (value == manifest.metrics.end() || !value->is_number()) return std::nullopt;
  return value->get<double>();
}

std::vector<RetentionEntry> retention_entries(const std::string& checkpoints, const RetentionPolicy& policy,
                                              const RetentionScope& scope) {
  std::vector<RetentionEntry> entries;
  for (const StepFolder& folder : step_folders(checkpoints)) {
    RetentionEntry entry{folder.step};
    // Behind a link lies somebody else's folder.
    const auto manifest =
        is_folder(folder.path) ? inspect_step(folder) : fail(ErrorKind::invalid, "not a folder");
    if (manifest && manifest->run == scope.run) {
      entry.valid = true;
      entry.verified = scope.verified.contains(folder.step);
      entry.pinned = is_pinned(checkpoints, folder.step);
      entry.in_use = scope.in_use.contains(folder.step);
      entry.non_finite = !manifest->non_finite.empty();
      if (policy.keep_best) entry.metric = metric_of(*manifest, policy.keep_best->metric);
    }
    entries.push_back(entry);
  }
  return entries;
}

std::optional<uint64_t> find_verified(const std::string& checkpoints, const RetentionScope& scope) {
  // Newest first, as step_folders() gives them.
  for (const RetentionEntry& entry : retention_entries(checkpoints, {}, scope)) {
    if (!entry.valid) continue;
    if (entry.verified) return entry.step;
    if (verify_step({entry.step, checkpoints + "/" + step_folder_name(entry.step)})) return entry.step;
  }
  return std::nullopt;
}

Retained retain(const std::string& checkpoints, const RetentionPolicy& policy, const RetentionScope& scope,
                FileOps& ops, uint64_t enough) {
  Retained done;
  for (const uint64_t step : steps_to_delete(retention_entries(checkpoints, policy, scope), policy)) {
    if (done.bytes >= enough) break;
    const StepFolder folder{step, checkpoints + "/" + step_folder_name(step)};
    const uint64_t bytes = bytes_freed_by({folder.path});
    if (auto status = remove_folder(folder.path, ops); !status) {
      done.failed.push_back(status.error());
      continue;
    }
    done.deleted.push_back(step);
    done.bytes += bytes;
  }
  return done;
}

RetentionPolicy under_disk_pressure(RetentionPolicy policy) {
  policy.keep_last = 1;
  return policy;
}

}  // namespace bitctl
