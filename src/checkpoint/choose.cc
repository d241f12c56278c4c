#include "checkpoint/choose.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/visible_text.h"

namespace bitctl {
namespace {

constexpr size_t kMostNamed = 12;

// "there are 30, 20 and 10": newest first, and not a thousand of them.
std::string what_is_there(const std::vector<StepFolder>& folders) {
  if (folders.empty()) return "there is none";
  std::string text = "there are";
  for (size_t i = 0; i < folders.size() && i < kMostNamed; ++i)
    text += fmt::format("{} {}", i == 0 ? "" : ",", folders[i].step);
  return folders.size() > kMostNamed ? text + ", …" : text;
}

}  // namespace

std::optional<uint64_t> step_number(const std::string& name) {
  uint64_t step = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return step;
}

Result<StepFolder> choose_step(const std::string& checkpoints, const std::string& name,
                               const BestMetric& best) {
  const auto number = step_number(name);
  if (!number && name != "newest" && name != "best")
    return fail(ErrorKind::invalid,
                fmt::format("\"{}\" is no step: a number, newest or best", visible_text(name)));
  const auto folders = step_folders(checkpoints);
  if (number) {
    for (const StepFolder& folder : folders)
      if (folder.step == *number) return folder;
    return fail(ErrorKind::not_found, fmt::format("{}: no checkpoint of step {}; {}", checkpoints, *number,
                                                  what_is_there(folders)));
  }
  std::vector<RetentionEntry> entries;
  for (const StepFolder& folder : folders) {
    const auto manifest = inspect_step(folder);
    if (!manifest) continue;
    if (name == "newest") return folder;
    entries.push_back({.step = folder.step,
                       .valid = true,
                       .non_finite = !manifest->non_finite.empty(),
                       .metric = metric_of(*manifest, best.metric)});
  }
  const auto ranked = best_steps(entries, best);
  for (const StepFolder& folder : folders)
    if (!ranked.empty() && folder.step == ranked.front()) return folder;
  return fail(ErrorKind::not_found,
              name == "newest"
                  ? fmt::format("{}: no whole checkpoint; {}", checkpoints, what_is_there(folders))
                  : fmt::format("{}: no finite checkpoint has the metric \"{}\"; {}", checkpoints,
                                visible_text(best.metric), what_is_there(folders)));
}

}  // namespace bitctl
