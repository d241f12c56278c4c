// What a plain (unquoted) YAML scalar means, by the core schema of YAML 1.2: only true/false, integers and
// floats are not text. `no`, `on`, `1_000` and dates stay text; 1e-4 is a number, with or without a dot.
#pragma once

#include <string_view>

#include "base/strict_json.h"

namespace bitctl {

// An integer beyond 64 bits becomes a float, so that it fails where a whole number is wanted. Null is not
// told here: the YAML parser reports it as an event of its own.
Json core_scalar(std::string_view plain);

}  // namespace bitctl
