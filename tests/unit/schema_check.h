// Whether a document obeys one of schemas/*.json.
#pragma once

#include <string>

#include <nlohmann/json.hpp>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validation_results.hpp>
#include <valijson/validator.hpp>

#include "unit/temporary_folder.h"

namespace bitctl {

// What is wrong with it, one complaint a line; empty where nothing is.
inline std::string schema_complaints(const std::string& schema_name, const std::string& document) {
  const auto schema_json = nlohmann::json::parse(
      read_text(std::string(BITCTL_SOURCE_DIR) + "/schemas/" + schema_name + ".schema.json"));
  valijson::Schema schema;
  valijson::SchemaParser parser;
  parser.populateSchema(valijson::adapters::NlohmannJsonAdapter(schema_json), schema);
  const auto json = nlohmann::json::parse(document, nullptr, false);
  if (json.is_discarded()) return "not JSON: " + document;
  valijson::Validator validator;
  valijson::ValidationResults results;
  if (validator.validate(schema, valijson::adapters::NlohmannJsonAdapter(json), &results)) return "";
  std::string text;
  for (valijson::ValidationResults::Error error; results.popError(error);) text += error.description + "\n";
  return text;
}

}  // namespace bitctl
