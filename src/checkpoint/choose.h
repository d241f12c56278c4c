// From what a person calls a step to its folder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "checkpoint/catalog.h"
#include "checkpoint/retention.h"

namespace bitctl {

// The number that a name is; nothing for "newest", "best", and what is no name of a step.
std::optional<uint64_t> step_number(const std::string& name);

// A number: that step, whether it is damaged or not. "newest": the newest whose manifest reads and whose
// sizes match; "best": the one of these with the best metric, a tie to the newer. Error::not_found names the
// steps that are there, Error::invalid what a step can be called.
Result<StepFolder> choose_step(const std::string& checkpoints, const std::string& name,
                               const BestMetric& best);

}  // namespace bitctl
