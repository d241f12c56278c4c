// JSON as RFC 8259 says and nothing beside it: duplicate keys, a byte order mark, NaN tokens, trailing bytes
// and deep nesting are refused, with the byte at which they were met.
#pragma once

#include <cstddef>
#include <map>
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

// Where the values of the outermost object begin, by key: for a message about a value of the wrong type.
using ValueOffsets = std::map<std::string, size_t>;

tl::expected<Json, JsonError> parse_strict_json(std::string_view text, size_t max_depth = 64,
                                                ValueOffsets* offsets = nullptr);

// One line, invalid UTF-8 replaced instead of thrown at.
std::string dump_line(const Json& json);

}  // namespace bitctl
