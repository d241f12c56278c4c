// Progress comes at any rate and goes into events.jsonl at most once a second: last, min, mean, max and count
// of the losses since the row before. Pure; the clock is the caller's.
#pragma once

#include <optional>

#include "base/clock.h"
#include "base/strict_json.h"
#include "watch/messages.h"

namespace bitctl {

class ProgressRows {
 public:
  static constexpr Duration kPace = std::chrono::seconds(1);

  // Takes a report in; true where a row is due now, else it is due at due_at().
  bool add(const Progress& progress, Mono now);
  // When the pending row is due; nothing where none is pending.
  std::optional<Mono> due_at() const;
  // The fields of the pending row (without t, attempt and kind), which then is no longer pending.
  Json take(Mono now);
  bool pending() const { return reports_ > 0; }
  // A new attempt starts without memory.
  void reset() { *this = ProgressRows(); }

 private:
  Progress last_;
  int reports_ = 0;
  double min_ = 0, max_ = 0, sum_ = 0, last_loss_ = 0;
  int losses_ = 0;
  std::string non_finite_;
  uint64_t non_finite_step_ = 0;
  std::optional<Mono> last_row_;
};

}  // namespace bitctl
