#include "config/core_scalar.h"

#include <charconv>
#include <limits>
#include <optional>
#include <string>

namespace bitctl {
namespace {

constexpr std::string_view kDigits = "0123456789";

// Removes the leading characters that are in `set`; true where there was at least one.
bool skip(std::string_view& text, std::string_view set) {
  const size_t end = std::min(text.find_first_not_of(set), text.size());
  text.remove_prefix(end);
  return end > 0;
}

bool skip_one(std::string_view& text, std::string_view set) {
  if (text.empty() || set.find(text[0]) == std::string_view::npos) return false;
  text.remove_prefix(1);
  return true;
}

bool is_decimal_integer(std::string_view text) {
  skip_one(text, "+-");
  return skip(text, kDigits) && text.empty();
}

bool is_decimal_float(std::string_view text) {
  skip_one(text, "+-");
  const bool whole = skip(text, kDigits);
  const bool fraction = skip_one(text, ".") && skip(text, kDigits);
  if (!whole && !fraction) return false;
  if (skip_one(text, "eE")) {
    skip_one(text, "+-");
    if (!skip(text, kDigits)) return false;
  }
  return text.empty();
}

double to_double(std::string_view text) {
  const bool negative = text[0] == '-';
  skip_one(text, "+-");
  double value = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), value).ec == std::errc::result_out_of_range)
    value = text.find('-') == std::string_view::npos ? std::numeric_limits<double>::infinity() : 0;
  return negative ? -value : value;
}

std::optional<int64_t> to_integer(std::string_view digits, int base) {
  if (digits.starts_with('+')) digits.remove_prefix(1);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

// 0x1F and 0o17.
std::optional<Json> based_integer(std::string_view text) {
  const int base = text.starts_with("0x") ? 16 : text.starts_with("0o") ? 8 : 0;
  if (base == 0 || text.size() < 3) return std::nullopt;
  text.remove_prefix(2);
  if (text.find_first_not_of(base == 16 ? "0123456789abcdefABCDEF" : "01234567") != std::string_view::npos)
    return std::nullopt;
  if (const auto value = to_integer(text, base)) return Json(*value);
  return Json(std::numeric_limits<double>::infinity());
}

std::optional<Json> special_float(std::string_view text) {
  if (text == ".nan" || text == ".NaN" || text == ".NAN")
    return Json(std::numeric_limits<double>::quiet_NaN());
  const double sign = text.starts_with('-') ? -1 : 1;
  skip_one(text, "+-");
  if (text == ".inf" || text == ".Inf" || text == ".INF")
    return Json(sign * std::numeric_limits<double>::infinity());
  return std::nullopt;
}

}  // namespace

Json core_scalar(std::string_view plain) {
  if (plain == "true" || plain == "True" || plain == "TRUE") return true;
  if (plain == "false" || plain == "False" || plain == "FALSE") return false;
  if (is_decimal_integer(plain)) {
    if (const auto value = to_integer(plain, 10)) return *value;
    return to_double(plain);
  }
  if (is_decimal_float(plain)) return to_double(plain);
  if (auto value = based_integer(plain)) return *std::move(value);
  if (auto value = special_float(plain)) return *std::move(value);
  return std::string(plain);
}

}  // namespace bitctl
