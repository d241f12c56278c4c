// The explanation of a run from what lies in its folder.
#pragma once

#include "base/result.h"
#include "run/explain.h"
#include "run/run_folder.h"

namespace bitctl {

// Error::not_found where the run has no history.
Result<Explanation> explain_run(const RunFolder& folder);

}  // namespace bitctl
