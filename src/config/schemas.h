// The files of schemas/, byte for byte, in the program.
#pragma once

#include <string_view>
#include <vector>

namespace bitctl {

// "config.v1" for schemas/config.v1.schema.json; empty where there is no such schema.
std::string_view embedded_schema(std::string_view name);

// In alphabetical order.
std::vector<std::string_view> embedded_schema_names();

}  // namespace bitctl
