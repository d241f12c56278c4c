// When a checkpoint is due; the rule of python/bitctl/_due.py. Pure; the clock is the caller's.
#pragma once

#include <cstdint>
#include <optional>

#include "base/strict_json.h"

namespace bitctl::trainer {

// Seconds between two snapshots. All in seconds.
double auto_interval(double stall, double persist, double time_to_failure);

class Due {
 public:
  // `policy`: {"steps": N}, {"seconds": S} or {"auto": true, "ran_seconds": S, "failures": N}.
  explicit Due(const Json& policy);

  // `now`, `persist` and `stall` in seconds.
  bool is_due(uint64_t step, double now, double persist);
  // The interval that was worked out here, where it is a tenth off what was told last.
  std::optional<double> news(double persist) const;
  void told(double interval) { told_ = interval; }
  void taken(uint64_t step, double now, double stall);

 private:
  uint64_t steps_ = 0;
  double seconds_ = 0;
  double time_to_failure_ = 0;
  uint64_t last_step_ = 0;
  std::optional<double> last_time_;
  double stall_ = 0;
  bool waits_ = false;  // was due, and no slot was free
  double told_ = 0;
};

}  // namespace bitctl::trainer
