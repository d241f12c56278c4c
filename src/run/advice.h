// What to try after a failure, by its evidence. Pure.
#pragma once

#include <string>
#include <vector>

#include "run/explain.h"
#include "run/story.h"
#include "run/traceback.h"

namespace bitctl {

// The most telling first; never empty.
std::vector<std::string> advice(const Story& story, const AttemptStory& failure, const Traceback& told,
                                const RunContext& around);

// "`bitctl resume demo-…` goes on from step 40".
std::string resume_advice(const Story& story, const RunContext& around);

}  // namespace bitctl
