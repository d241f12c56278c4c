#include "model/config_fields.h"

#include <fmt/format.h>

#include "base/visible_text.h"

namespace bitctl {

std::string shown(const Json& value) { return shortened(visible_text(dump_line(value)), 60); }

const Json* ConfigFields::find(std::string_view key) {
  read_.emplace(key);
  const auto at = object_.find(key);
  return at == object_.end() || at->is_null() ? nullptr : &*at;
}

int64_t ConfigFields::size(std::string_view key, std::optional<int64_t> otherwise, int64_t most,
                           int64_t least) {
  const Json* value = find(key);
  if (value == nullptr) {
    if (!otherwise) refuse(fmt::format("{} is missing", key));
    return otherwise.value_or(1);
  }
  if (!value->is_number_unsigned() || value->get<uint64_t>() < static_cast<uint64_t>(least) ||
      value->get<uint64_t>() > static_cast<uint64_t>(most)) {
    refuse(fmt::format("{} is {}, it must be an integer from {} to {}", key, shown(*value), least, most));
    return 1;
  }
  return value->get<int64_t>();
}

double ConfigFields::positive(std::string_view key, std::optional<double> otherwise) {
  const Json* value = find(key);
  if (value == nullptr) {
    if (!otherwise) refuse(fmt::format("{} is missing", key));
    return otherwise.value_or(1);
  }
  if (!value->is_number() || !(value->get<double>() > 0)) {
    refuse(fmt::format("{} is {}, it must be a number above 0", key, shown(*value)));
    return 1;
  }
  return value->get<double>();
}

bool ConfigFields::flag(std::string_view key, bool otherwise) {
  const Json* value = find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) {
    refuse(fmt::format("{} is {}, no true or false", key, shown(*value)));
    return otherwise;
  }
  return value->get<bool>();
}

std::string ConfigFields::text(std::string_view key, std::string_view otherwise) {
  const Json* value = find(key);
  if (value == nullptr) return std::string(otherwise);
  if (!value->is_string()) {
    refuse(fmt::format("{} is {}, no text", key, shown(*value)));
    return std::string(otherwise);
  }
  return value->get<std::string>();
}

void ConfigFields::refuse(const std::string& reason) {
  if (error_.empty()) error_ = "config.json: " + reason;
}

}  // namespace bitctl
