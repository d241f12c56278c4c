#include "launch/isolation.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "base/environment_variable.h"
#include "launch/cgroup.h"
#include "launch/group.h"
#include "launch/sweep.h"

namespace bitctl {
namespace {

constexpr std::string_view kLevels[] = {"", "cgroup", "scope", "sweep", "group"};

}  // namespace

IsolationWish IsolationWish::of_environment() {
  return {environment_variable("BITCTL_ISOLATION"), environment_variable("BITCTL_SCOPE")};
}

Result<std::unique_ptr<Isolation>> Isolation::choose(const std::string& run_folder,
                                                     const IsolationWish& wish) {
  if (std::find(std::begin(kLevels), std::end(kLevels), wish.level) == std::end(kLevels))
    return fail(ErrorKind::invalid,
                "BITCTL_ISOLATION is 'cgroup', 'scope', 'sweep' or 'group', not '" + wish.level + "'");
  if (wish.level == "group") return isolate_by_group();
  if (wish.level == "sweep") return isolate_by_sweep(run_folder);
  const bool in_scope = wish.scope == "entered";
  if (wish.level == "scope" && !in_scope)
    return fail(ErrorKind::invalid,
                "BITCTL_ISOLATION=scope: " + (wish.scope.empty() ? "not started in one" : wish.scope));
  auto cgroup = isolate_by_cgroup(run_folder, in_scope ? "scope" : "cgroup");
  if (cgroup) return cgroup;
  if (!wish.level.empty())
    return fail(ErrorKind::invalid,
                fmt::format("BITCTL_ISOLATION={}: {}", wish.level, cgroup.error().message));
  spdlog::info("isolation by sweep: {}{}", cgroup.error().message,
               wish.scope.empty() || in_scope ? "" : "; " + wish.scope);
  return isolate_by_sweep(run_folder);
}

std::unique_ptr<Isolation> Isolation::rebuild(const Json& description) {
  const std::string level = get_text(description, "level");
  if (level == "cgroup" || level == "scope") return rebuild_cgroup(description);
  if (level == "group") return isolate_by_group();
  return rebuild_sweep(description);
}

}  // namespace bitctl
