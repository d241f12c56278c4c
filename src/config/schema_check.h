// Documents against a JSON Schema (draft-07), with messages for people. Valijson judges; what is wrong is
// then said in terms of the schema's own words: `errorMessage` (the keyword that editors know too) is what
// was expected, and under `writeOnly` no value is ever repeated.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/strict_json.h"
#include "config/yaml_document.h"

namespace bitctl {

// Every problem, such as "checkpoints.keep_last: expected a whole number from 1 to 9, got 0"; none where the
// document fits. The schema keeps to what those in schemas/ use: objects, arrays, scalars, oneOf over
// required keys, dependencies; no $ref. Numbers are quoted as the document's text has them.
std::vector<Problem> check_schema(const Json& schema, const YamlDocument& document);

// The same for a document without places, one line a problem; `name` is that of an embedded schema.
std::vector<std::string> check_schema(std::string_view name, const Json& json);

// The embedded schema, parsed once. The name must be known.
const Json& parsed_schema(std::string_view name);

// The part of the schema that rules the value at a pointer; nullptr where it rules nothing there.
const Json* schema_at(const Json& schema, const std::string& pointer);

// "run.command[1]", "the top level".
std::string dotted(const std::string& pointer);

}  // namespace bitctl
