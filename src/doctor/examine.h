// All checks of `bitctl doctor`, at most ten seconds together.
#pragma once

#include <string>
#include <vector>

#include "doctor/finding.h"

namespace bitctl {

// For trainings in `folder`: a run, a folder of runs, or where one would be started. Leaves nothing behind.
std::vector<Finding> examine(const std::string& folder);

}  // namespace bitctl
