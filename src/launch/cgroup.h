// Isolation by cgroup v2: see launch/isolation.h.
#pragma once

#include "launch/isolation.h"

namespace bitctl {

// Error where there is no cgroup v2 that we may write to, or no cgroup.kill.
Result<std::unique_ptr<Isolation>> isolate_by_cgroup(const std::string& run_folder);
std::unique_ptr<Isolation> rebuild_cgroup(const Json& description);

}  // namespace bitctl
