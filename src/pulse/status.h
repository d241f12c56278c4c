// PULSE v1: the six frozen fields, and what a reader derives from them. Pure; no file is touched here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace bitctl {

enum class TrainingState { idle, running, done, error };

struct PulseStatus {
  TrainingState status = TrainingState::idle;
  double epoch = 0;         // >= 0, finite, fractional
  double total_epochs = 0;  // >= 0, finite; 0 where nothing is known
  double loss = 0;          // finite
  std::string message;      // UTF-8
  int64_t timestamp = 0;    // Unix seconds

  bool operator==(const PulseStatus&) const = default;
};

constexpr size_t kMaxPulseMessageBytes =
    4096;                                   // a writer cuts longer ones, so that a reader never refuses them
constexpr int64_t kStaleAfterSeconds = 60;  // 60 s is fresh, 61 s is stale

std::string_view state_name(TrainingState state);  // "idle", "running", "done", "error"

// 0 … 100; 0 where total_epochs is not positive or the quotient is not finite.
double progress_percent(const PulseStatus& status);

// Running, and silent for more than 60 s. A time stamp in the future is not stale.
bool is_stale(const PulseStatus& status, int64_t now);

// How a stale status reads: error, "Process unresponsive (stale pulse)", all else unchanged. Never written
// back.
PulseStatus as_stale(PulseStatus status);

// What a reader shows where there is no file: idle, zeros, "No training in progress".
PulseStatus idle_status(int64_t now);

// The file's exact bytes: one line of JSON, keys in the frozen order, a newline at the end. Invalid UTF-8 in
// the message is replaced.
std::string to_file_bytes(const PulseStatus& status);

}  // namespace bitctl
