#include "pulse/status.h"

#include <algorithm>
#include <cmath>

#include "base/strict_json.h"

namespace bitctl {

std::string_view state_name(TrainingState state) {
  switch (state) {
    case TrainingState::idle:
      return "idle";
    case TrainingState::running:
      return "running";
    case TrainingState::done:
      return "done";
    case TrainingState::error:
      return "error";
  }
  return "error";
}

double progress_percent(const PulseStatus& status) {
  if (!(status.total_epochs > 0)) return 0;
  const double percent = 100 * (status.epoch / status.total_epochs);
  // std::clamp hands NaN through.
  return std::isfinite(percent) ? std::clamp(percent, 0.0, 100.0) : 0;
}

bool is_stale(const PulseStatus& status, int64_t now) {
  return status.status == TrainingState::running && status.timestamp < now - kStaleAfterSeconds;
}

PulseStatus as_stale(PulseStatus status) {
  status.status = TrainingState::error;
  status.message = "Process unresponsive (stale pulse)";
  return status;
}

PulseStatus idle_status(int64_t now) { return {.message = "No training in progress", .timestamp = now}; }

std::string to_file_bytes(const PulseStatus& status) {
  const Json json = {{"status", state_name(status.status)}, {"epoch", status.epoch},
                     {"total_epochs", status.total_epochs}, {"loss", status.loss},
                     {"message", status.message},           {"timestamp", status.timestamp}};
  return dump_line(json) + "\n";
}

}  // namespace bitctl
