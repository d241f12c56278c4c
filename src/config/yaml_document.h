// A YAML text as JSON, with the place and the exact characters of every value. What YAML offers beyond maps,
// lists and scalars (anchors, aliases, tags, merge keys, several documents) is refused, and so is what it
// leaves to chance (duplicate keys). Pure; nothing is read from disk here.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include "base/strict_json.h"

namespace bitctl {

constexpr size_t kMaxConfigBytes = 256 * 1024;
constexpr size_t kMaxConfigDepth = 32;

struct Place {
  std::string source;  // the file as the user named it, or "--set run.env.LR"
  int line = 0;        // from 1; 0 where the source has no lines
  int column = 0;      // from 1, in characters

  std::string str() const;  // "config.yaml:12:5"
};

// The order of a list of problems: down the file, then what has no line.
bool operator<(const Place& a, const Place& b);

struct Problem {
  Place place;
  std::string text;

  std::string str() const { return place.str() + ": " + text; }
};

struct YamlNode {
  Place place;
  Place key_place;   // of its key; of the value itself for list items and the root
  std::string text;  // a scalar's characters as they were written (quotes resolved): "1e-4", "007", "1.10"
};

struct YamlDocument {
  Json json;                              // plain scalars typed by the YAML 1.2 core schema, quoted ones text
  std::map<std::string, YamlNode> nodes;  // by JSON pointer; "" is the root

  const YamlNode& at(const std::string& pointer) const { return nodes.at(pointer); }
  bool has(const std::string& pointer) const { return nodes.contains(pointer); }
};

// The JSON pointer of a member.
std::string child_pointer(const std::string& parent, std::string_view key);

// No problem ever holds a value of the text.
tl::expected<YamlDocument, Problem> parse_yaml(std::string_view text, const std::string& source);

// Puts the value of "KEY=VALUE" (a dotted key and a YAML scalar or flow value) into the document. Below a map
// whose keys are free, such as run.env, the rest of the dotted key is one key: `is_free_map` says which
// pointers are such maps. The places of the new values are "--set KEY".
std::optional<Problem> override_value(YamlDocument& document, const std::string& assignment,
                                      bool (*is_free_map)(const std::string& pointer));

}  // namespace bitctl
