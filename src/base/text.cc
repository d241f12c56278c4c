#include "base/text.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstring>
#include <numeric>

namespace bitctl {

using std::chrono::duration_cast;

std::string format_bytes(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string format_duration(Duration duration) {
  const double seconds = std::max(0.0, as_seconds(duration));
  if (seconds > 0 && seconds < 0.0995) return fmt::format("{:.0f}ms", seconds * 1000);
  // "0.4s" and "3.2s", but "4s" for what was meant as four seconds.
  if (seconds < 10 && std::fabs(seconds - std::round(seconds)) >= 0.05)
    return fmt::format("{:.1f}s", seconds);
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  if (whole < 60) return fmt::format("{}s", whole);
  if (whole < 3600) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  if (whole < 86400) return fmt::format("{}h{:02}m", whole / 3600, whole % 3600 / 60);
  return fmt::format("{}d{:02}h", whole / 86400, whole % 86400 / 3600);
}

namespace {

// A number with an optional fraction at the front of the text; moves the text past it.
std::optional<double> take_number(std::string_view& text) {
  size_t end = 0;
  while (end < text.size() && (std::isdigit(static_cast<unsigned char>(text[end])) || text[end] == '.'))
    ++end;
  if (end == 0 || std::count(text.begin(), text.begin() + static_cast<long>(end), '.') > 1 || text[0] == '.')
    return std::nullopt;
  double value = 0;
  const bool fits = std::from_chars(text.data(), text.data() + end, value).ec == std::errc();
  text.remove_prefix(end);
  return fits ? std::optional(value) : std::nullopt;
}

}  // namespace

std::optional<Duration> parse_duration(std::string_view text) {
  double seconds = 0;
  if (text.empty()) return std::nullopt;
  while (!text.empty()) {
    const auto value = take_number(text);
    if (!value) return std::nullopt;
    size_t end = 0;
    while (end < text.size() && std::isalpha(static_cast<unsigned char>(text[end]))) ++end;
    const std::string_view unit = text.substr(0, end);
    text.remove_prefix(end);
    if (unit == "ms")
      seconds += *value / 1000;
    else if (unit == "s")
      seconds += *value;
    else if (unit == "m")
      seconds += *value * 60;
    else if (unit == "h")
      seconds += *value * 3600;
    else if (unit == "d")
      seconds += *value * 86400;
    else
      return std::nullopt;
  }
  if (seconds > 100.0 * 365 * 86400) return std::nullopt;
  return from_seconds(seconds);
}

std::optional<uint64_t> parse_size(std::string_view text) {
  const auto value = take_number(text);
  if (!value) return std::nullopt;
  constexpr std::pair<const char*, double> kUnits[] = {
      {"", 1},      {"B", 1},      {"KB", 1e3},           {"MB", 1e6},          {"GB", 1e9},
      {"TB", 1e12}, {"KiB", 1024}, {"MiB", 1024. * 1024}, {"GiB", 1073741824.}, {"TiB", 1099511627776.}};
  for (const auto& [unit, factor] : kUnits) {
    const double bytes = *value * factor;
    if (text == unit) return bytes < 9e18 ? std::optional(static_cast<uint64_t>(bytes)) : std::nullopt;
  }
  return std::nullopt;
}

std::string signal_name(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return name ? fmt::format("SIG{}", name) : fmt::format("signal {}", signal);
}

std::optional<int> signal_number(std::string_view name) {
  if (name.starts_with("SIG")) name.remove_prefix(3);
  for (int signal = 1; signal < NSIG; ++signal) {
    const char* known = ::sigabbrev_np(signal);
    if ((known && name == known) || name == std::to_string(signal)) return signal;
  }
  return std::nullopt;
}

namespace {

// Insertions, deletions, substitutions, and neighbours that changed places (the commonest slip of all).
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    before.swap(above);
    above.swap(row);
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row.back();
}

}  // namespace

std::optional<std::string> nearest_word(std::string_view word, const std::vector<std::string>& candidates) {
  const size_t limit = std::max<size_t>(1, std::min<size_t>(2, word.size() / 3));
  std::optional<std::string> best;
  size_t best_distance = limit + 1;
  for (const auto& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (true) {
    const size_t at = text.find(separator);
    parts.emplace_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

}  // namespace bitctl
