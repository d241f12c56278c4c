// JSON as RFC 8259 says and nothing beside it: duplicate keys, a byte order mark, NaN tokens, trailing bytes
// and deep nesting are refused, with the byte at which they were met.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/result.h"

namespace bitctl {

using Json = nlohmann::ordered_json;

struct JsonError {
  size_t byte = 0;  // offset of the first byte that is wrong
  std::string reason;
};

tl::expected<Json, JsonError> parse_strict_json(std::string_view text, size_t max_depth = 64);

// One line, invalid UTF-8 replaced instead of thrown at.
std::string dump_line(const Json& json);

}  // namespace bitctl
