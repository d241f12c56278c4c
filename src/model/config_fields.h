// The fields of a config.json, each read by its type. The first wrong one is kept as the error; what is read
// after that is some legal value, so that a parser need not look after every line.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/strict_json.h"

namespace bitctl {

class ConfigFields {
 public:
  explicit ConfigFields(const Json& object) : object_(object) {}

  // Null where it is absent or null: transformers writes both and, nearly always, means the same.
  const Json* find(std::string_view key);
  bool is_present(std::string_view key) const { return object_.contains(key); }

  int64_t size(std::string_view key, std::optional<int64_t> otherwise = std::nullopt,
               int64_t most = INT32_MAX, int64_t least = 1);
  double positive(std::string_view key, std::optional<double> otherwise = std::nullopt);
  bool flag(std::string_view key, bool otherwise = false);
  std::string text(std::string_view key, std::string_view otherwise);

  // Whether anybody has asked for it.
  bool was_read(std::string_view key) const { return read_.contains(key); }
  // With "config.json: " before it.
  void refuse(const std::string& reason);
  const std::string& error() const { return error_; }

 private:
  const Json& object_;
  std::set<std::string, std::less<>> read_;
  std::string error_;
};

// On one line, shortened, for a message.
std::string shown(const Json& value);

}  // namespace bitctl
