// Small texts that several rooms print or read: durations, sizes, near misses.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace bitctl {

std::string format_bytes(uint64_t bytes);        // "512 B", "1.2 GiB"
std::string format_duration(Duration duration);  // "0.4s", "12s", "4m10s", "3h12m", "2d4h"

// "30s", "5m", "2h", "1d", "500ms"; also several in a row ("1h30m"). Nothing where the text is no duration.
std::optional<Duration> parse_duration(std::string_view text);
// "20GiB", "512MB", "4096".
std::optional<uint64_t> parse_size(std::string_view text);

// "SIGKILL" for 9; "signal 99" where the number has no name.
std::string signal_name(int signal);
std::optional<int> signal_number(std::string_view name);  // "SIGTERM", "TERM" or "15"

// The candidate that a mistyped word most likely meant (edit distance at most 2 and a third of its length).
std::optional<std::string> nearest_word(std::string_view word, const std::vector<std::string>& candidates);

std::vector<std::string> split(std::string_view text, char separator);

}  // namespace bitctl
