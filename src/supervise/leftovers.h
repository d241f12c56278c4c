// Processes of dead runs: supervisor and writer were killed together, and what they held lives on.
#pragma once

#include <string>

namespace bitctl {

// Ends what runs of that name in that folder left behind, where nobody holds the run's lock. Returns how
// many.
int sweep_dead_runs(const std::string& runs_folder, const std::string& name);

}  // namespace bitctl
