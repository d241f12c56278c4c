// The labels of a run, as run.json keeps them. PULSE holds no context, so a viewer looks beside it.
#pragma once

#include <string>

#include "pulse/view.h"

namespace bitctl {

// From {"labels": {"profile": …, "dataset": …}}; what is missing or broken stays "Unknown". Never fails.
RunLabels read_labels(const std::string& run_json);

}  // namespace bitctl
