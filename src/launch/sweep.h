// Isolation without rights: see launch/isolation.h.
#pragma once

#include "launch/isolation.h"

namespace bitctl {

// Makes this process the sub-reaper of all that it starts.
std::unique_ptr<Isolation> isolate_by_sweep(const std::string& run_folder);
// In the writer: by marker and session alone, since nothing descends from it.
std::unique_ptr<Isolation> rebuild_sweep(const Json& description);

}  // namespace bitctl
