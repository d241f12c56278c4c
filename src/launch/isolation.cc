#include "launch/isolation.h"

#include <spdlog/spdlog.h>

#include "launch/cgroup.h"
#include "launch/sweep.h"

namespace bitctl {

Result<std::unique_ptr<Isolation>> Isolation::choose(const std::string& run_folder,
                                                     const std::string& forced) {
  if (!forced.empty() && forced != "cgroup" && forced != "sweep")
    return fail(ErrorKind::invalid, "BITCTL_ISOLATION is 'cgroup' or 'sweep', not '" + forced + "'");
  if (forced != "sweep") {
    auto cgroup = isolate_by_cgroup(run_folder);
    if (cgroup) return cgroup;
    if (forced == "cgroup")
      return fail(ErrorKind::invalid, "BITCTL_ISOLATION=cgroup: " + cgroup.error().message);
    spdlog::info("isolation by sweep: {}", cgroup.error().message);
  }
  return isolate_by_sweep(run_folder);
}

std::unique_ptr<Isolation> Isolation::rebuild(const Json& description) {
  if (get_text(description, "level") == "cgroup") return rebuild_cgroup(description);
  return rebuild_sweep(description);
}

}  // namespace bitctl
