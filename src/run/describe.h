// Rows of events.jsonl as people read them.
#pragma once

#include <string>

#include "base/strict_json.h"
#include "run/history.h"

namespace bitctl {

// One line, safe for a terminal; empty for rows that are no news. `history` holds the row already.
std::string describe_row(const Json& row, const History& history);

// "step 120/1000 · loss 0.3420 · 3.1 step/s · ETA 4m10s"
std::string describe_progress(const History& history);

}  // namespace bitctl
