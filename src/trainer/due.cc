#include "trainer/due.h"

#include <algorithm>
#include <cmath>

namespace bitctl::trainer {
namespace {

double number(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<double>() : 0;
}

}  // namespace

double auto_interval(double stall, double persist, double time_to_failure) {
  constexpr double kLongest = 600, kOverhead = 0.01, kSlowed = 0.02;
  const double cost = stall + kSlowed * persist;
  return std::max(
      {std::min(kLongest, std::sqrt(2 * time_to_failure * cost)), cost / kOverhead, persist, 1.0});
}

Due::Due(const Json& policy)
    : steps_(get_unsigned(policy, "steps").value_or(0)), seconds_(number(policy, "seconds")) {
  constexpr double kUnknown = 86400;  // between failures where none has been seen
  const double ran = number(policy, "ran_seconds");
  const double failures = number(policy, "failures");
  time_to_failure_ = failures > 0 ? ran / failures : std::max(ran, kUnknown);
}

bool Due::is_due(uint64_t step, double now, double persist) {
  if (!last_time_) {
    last_step_ = step == 0 ? 0 : step - 1;
    last_time_ = now;
  }
  if (waits_) return true;
  // Counted in steps of the run, not of the attempt: a resumed run saves at the same steps.
  if (steps_ > 0)
    waits_ = step / steps_ > last_step_ / steps_;
  else
    waits_ =
        now - *last_time_ >= (seconds_ > 0 ? seconds_ : auto_interval(stall_, persist, time_to_failure_));
  return waits_;
}

std::optional<double> Due::news(double persist) const {
  if (steps_ > 0 || seconds_ > 0 || persist <= 0) return std::nullopt;
  const double interval = auto_interval(stall_, persist, time_to_failure_);
  return std::abs(interval - told_) <= told_ / 10 ? std::nullopt : std::optional(interval);
}

void Due::taken(uint64_t step, double now, double stall) {
  last_step_ = step;
  last_time_ = now;
  stall_ = stall;
  waits_ = false;
}

}  // namespace bitctl::trainer
