// How many columns of a terminal a text takes: wide characters two, combining marks none.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace bitctl {

// The text must be valid UTF-8 without control characters (visible_text makes it so).
size_t columns_of(std::string_view text);

// The text in at most `columns` columns, "…" as its last one where something was cut. A flood of marks that
// take no column is cut too.
std::string clipped(std::string_view text, size_t columns);

}  // namespace bitctl
