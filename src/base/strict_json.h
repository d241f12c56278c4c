// JSON as RFC 8259 says and nothing beside it: duplicate keys, a byte order mark, NaN tokens, trailing bytes
// and deep nesting are refused, with the byte at which they were met.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
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

// A field of an object by its type; nothing where it is absent or of another type. A whole number that is not
// negative: what a parser makes of "1", and what C++ makes of a literal 1.
std::optional<uint64_t> get_unsigned(const Json& object, std::string_view key);
std::optional<double> get_finite(const Json& object, std::string_view key);
std::string get_text(const Json& object, std::string_view key, std::string_view otherwise = {});
bool get_flag(const Json& object, std::string_view key);

// One line, invalid UTF-8 replaced instead of thrown at.
std::string dump_line(const Json& json);

}  // namespace bitctl
