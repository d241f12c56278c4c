#include "config/schema_check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>
#include <stdexcept>

#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validator.hpp>

#include "base/text.h"
#include "base/visible_text.h"
#include "config/schemas.h"

namespace bitctl {
namespace {

// What Valijson says, one entry a failed constraint, keyed by the pointer of the value.
using Complaints = std::map<std::string, std::vector<std::string>>;

Complaints complaints_of(const Json& schema_json, const Json& json) {
  // The adapter knows only the unordered kind.
  const auto schema_text = nlohmann::json(schema_json);
  const auto target = nlohmann::json(json);
  valijson::Schema schema;
  valijson::SchemaParser().populateSchema(valijson::adapters::NlohmannJsonAdapter(schema_text), schema);
  valijson::ValidationResults results;
  valijson::Validator validator;
  const bool fits = validator.validate(schema, valijson::adapters::NlohmannJsonAdapter(target), &results);

  Complaints complaints;
  for (const auto& error : results) {
    std::string pointer;  // the context reads "<root>", "[run]", "[command]", "[1]"
    for (size_t i = 1; i < error.context.size(); ++i) {
      const std::string& part = error.context[i];
      pointer = child_pointer(pointer, std::string_view(part).substr(1, part.size() - 2));
    }
    complaints[pointer].push_back(error.description);
  }
  if (!fits && complaints.empty())
    complaints[""] = {"does not fit the schema"};  // some constraints say nothing
  return complaints;
}

std::vector<std::string> parts_of(const std::string& pointer) {
  std::vector<std::string> parts = split(pointer, '/');
  parts.erase(parts.begin());
  for (std::string& part : parts) {
    for (size_t at = 0; (at = part.find('~', at)) != std::string::npos; ++at)
      part.replace(at, 2, part.substr(at, 2) == "~1" ? "/" : "~");
  }
  return parts;
}

const Json* value_at(const Json& json, const std::string& pointer) {
  const Json* at = &json;
  for (const std::string& part : parts_of(pointer))
    at = at->is_array() ? &at->at(std::stoul(part)) : &at->at(part);
  return at;
}

std::vector<std::string> keys_of(const Json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

std::vector<std::string> texts_of(const Json& list) {
  std::vector<std::string> texts;
  for (const Json& item : list) texts.push_back(item.is_string() ? item.get<std::string>() : item.dump());
  return texts;
}

// One document under one schema; each method reports on the value at one pointer.
class Reporter {
 public:
  Reporter(const Json& schema, const YamlDocument& document) : root_(schema), document_(document) {}

  std::vector<Problem> problems;

  void report(const std::string& pointer, const std::vector<std::string>& complaints) {
    const Json* schema = schema_at(root_, pointer);
    const Json& value = *value_at(document_.json, pointer);
    if (schema == nullptr) return;
    const bool is_map = value.is_object();
    bool value_is_wrong = false;
    for (const std::string& complaint : complaints) {
      const auto says = [&](std::string_view start) { return complaint.starts_with(start); };
      const bool about_one_of =
          complaint.ends_with("one child schema.") || complaint.ends_with("oneOf constraint.");
      if (says("Failed to validate ") && !(about_one_of && is_map))
        continue;  // a parent that repeats what its child has said
      if (says("Object contains a property"))
        unknown_keys(pointer, *schema, value);
      else if (says("Missing dependency"))
        missing_dependencies(pointer, *schema, value);
      else if (about_one_of)
        not_exactly_one(pointer, *schema, value);
      else if (says("Missing required property"))
        missing_keys(pointer, *schema, value);
      else
        value_is_wrong = true;
    }
    if (value_is_wrong) wrong_value(pointer, *schema, value);
  }

 private:
  enum class At { key, value };

  void add(const std::string& pointer, At at, std::string text) {
    Place place;
    if (document_.has(pointer))
      place = at == At::key ? document_.at(pointer).key_place : document_.at(pointer).place;
    const auto same = [&](const Problem& known) { return known.text == text; };
    if (std::none_of(problems.begin(), problems.end(), same)) problems.push_back({place, std::move(text)});
  }

  void unknown_keys(const std::string& pointer, const Json& schema, const Json& value) {
    const std::vector<std::string> known = keys_of(schema["properties"]);
    for (const std::string& key : keys_of(value)) {
      if (std::find(known.begin(), known.end(), key) != known.end()) continue;
      const auto meant = nearest_word(key, known);
      add(child_pointer(pointer, key), At::key,
          fmt::format("unknown key '{}' in {}; {}", shortened(key, 60), dotted(pointer),
                      meant ? fmt::format("did you mean '{}'?", *meant)
                            : fmt::format("it knows {}", fmt::join(known, ", "))));
    }
  }

  void missing_keys(const std::string& pointer, const Json& schema, const Json& value) {
    for (const std::string& key : texts_of(schema.value("required", Json::array())))
      if (!value.contains(key))
        add(pointer, At::value, fmt::format("'{}' is missing in {}", key, dotted(pointer)));
  }

  void missing_dependencies(const std::string& pointer, const Json& schema, const Json& value) {
    for (const auto& [key, needed] : schema["dependencies"].items())
      for (const std::string& other : texts_of(needed))
        if (value.contains(key) && !value.contains(other))
          add(child_pointer(pointer, key), At::key,
              fmt::format("'{}' in {} needs '{}'", key, dotted(pointer), other));
  }

  // A oneOf whose alternatives each require one key.
  void not_exactly_one(const std::string& pointer, const Json& schema, const Json& value) {
    std::vector<std::string> keys;
    for (const Json& alternative : schema["oneOf"])
      for (const std::string& key : texts_of(alternative["required"])) keys.push_back(key);
    std::vector<std::string> present = keys_of(value);
    std::erase_if(present, [&](const std::string& key) {
      return std::find(keys.begin(), keys.end(), key) == keys.end();
    });
    if (present.empty())
      add(pointer, At::value, fmt::format("{} needs one of {}", dotted(pointer), fmt::join(keys, ", ")));
    else
      add(child_pointer(pointer, present[1]), At::key,
          fmt::format("{} has {}; keep one of them", dotted(pointer), fmt::join(present, " and ")));
  }

  void wrong_value(const std::string& pointer, const Json& schema, const Json& value) {
    std::string text = fmt::format("{}: expected {}, got {}", dotted(pointer), expected(schema),
                                   described(pointer, schema, value));
    if (value.is_string() && schema.contains("enum")) {
      if (const auto meant = nearest_word(value.get<std::string>(), texts_of(schema["enum"])))
        text += fmt::format("; did you mean '{}'?", *meant);
    } else if ((value.is_number() || value.is_boolean()) && allows(schema, "string") &&
               !schema.contains("minimum")) {
      text += " (in quotes it is text)";
    }
    add(pointer, At::value, std::move(text));
  }

  static bool allows(const Json& schema, std::string_view type) {
    const Json types = schema.value("type", Json());
    if (types.is_string()) return types == type;
    return std::find(types.begin(), types.end(), type) != types.end();
  }

  static std::string expected(const Json& schema) {
    if (schema.contains("errorMessage")) return schema["errorMessage"];
    if (schema.contains("enum")) {
      const auto values = texts_of(schema["enum"]);
      return values.size() == 1 ? values[0] : fmt::format("one of {}", fmt::join(values, ", "));
    }
    static const std::map<std::string, std::string> kWords = {
        {"object", "a map"},          {"array", "a list"}, {"string", "text"},
        {"number", "a number"},       {"null", "null"},    {"boolean", "true or false"},
        {"integer", "a whole number"}};
    const Json types = schema.value("type", Json::array());
    const bool any_scalar = allows(schema, "string") && allows(schema, "number");  // then it is read as text
    std::vector<std::string> words;
    for (const std::string& type : texts_of(types.is_array() ? types : Json::array({types})))
      if (!any_scalar || (type != "number" && type != "boolean")) words.push_back(kWords.at(type));
    std::string text = fmt::format("{}", fmt::join(words, " or "));
    if (schema.contains("minimum") && schema.contains("maximum"))
      text += fmt::format(" from {} to {}", schema["minimum"].dump(), schema["maximum"].dump());
    else if (schema.contains("minimum"))
      text += fmt::format(" of at least {}", schema["minimum"].dump());
    return text;
  }

  // Text is repeated only where text was asked for: elsewhere it may be a secret in the wrong place.
  std::string described(const std::string& pointer, const Json& schema, const Json& value) const {
    if (value.is_null()) return "nothing";
    if (value.is_object()) return "a map";
    if (value.is_array()) return value.empty() ? "an empty list" : "a list";
    const bool may_show = !is_write_only(pointer);
    if (value.is_string()) {
      if (value.get_ref<const std::string&>().empty()) return "empty text";
      const bool text_was_asked_for = allows(schema, "string") || schema.contains("enum");
      return may_show && text_was_asked_for ? fmt::format("'{}'", shortened(value.get<std::string>(), 60))
                                            : "text";
    }
    if (!may_show) return value.is_boolean() ? "true or false" : "a number";
    return document_.has(pointer) ? shortened(document_.at(pointer).text, 60) : value.dump();
  }

  bool is_write_only(const std::string& pointer) const {
    for (size_t end = 0; end != std::string::npos;) {
      end = pointer.find('/', end + 1);
      const Json* schema = schema_at(root_, pointer.substr(0, end));
      if (schema != nullptr && schema->value("writeOnly", false)) return true;
    }
    return false;
  }

  const Json& root_;
  const YamlDocument& document_;
};

}  // namespace

std::vector<Problem> check_schema(const Json& schema, const YamlDocument& document) {
  const Complaints complaints = complaints_of(schema, document.json);
  Reporter reporter(schema, document);
  for (const auto& [pointer, texts] : complaints) reporter.report(pointer, texts);
  // Whatever the judge refuses stays refused, even where no words were found for it.
  if (reporter.problems.empty() && !complaints.empty())
    reporter.problems.push_back(
        {{}, dotted(complaints.begin()->first) + ": " + complaints.begin()->second[0]});
  std::stable_sort(reporter.problems.begin(), reporter.problems.end(),
                   [](const Problem& a, const Problem& b) { return a.place < b.place; });
  return std::move(reporter.problems);
}

std::vector<std::string> check_schema(std::string_view name, const Json& json) {
  std::vector<std::string> lines;
  for (const Problem& problem : check_schema(parsed_schema(name), YamlDocument{json, {}}))
    lines.push_back(problem.text);
  return lines;
}

const Json& parsed_schema(std::string_view name) {
  static const std::map<std::string, Json, std::less<>> schemas = [] {
    std::map<std::string, Json, std::less<>> all;
    for (const std::string_view each : embedded_schema_names())
      all.emplace(each, Json::parse(embedded_schema(each)));
    return all;
  }();
  return schemas.at(std::string(name));
}

const Json* schema_at(const Json& schema, const std::string& pointer) {
  const Json* at = &schema;
  for (const std::string& part : parts_of(pointer)) {
    const auto properties = at->find("properties");
    if (properties != at->end() && properties->contains(part)) {
      at = &(*properties)[part];
      continue;
    }
    const bool is_index = part.find_first_not_of("0123456789") == std::string::npos;
    const auto items = at->find("items");
    const auto others = at->find("additionalProperties");
    if (others != at->end() && others->is_object() && !(is_index && items != at->end()))
      at = &*others;
    else if (items != at->end())
      at = &*items;
    else
      return nullptr;
  }
  return at;
}

std::string dotted(const std::string& pointer) {
  std::string text;
  for (const std::string& part : parts_of(pointer)) {
    if (!part.empty() && part.find_first_not_of("0123456789") == std::string::npos)
      text += "[" + part + "]";
    else
      text += (text.empty() ? "" : ".") + part;
  }
  return text.empty() ? "the top level" : shortened(text, 120);
}

}  // namespace bitctl
