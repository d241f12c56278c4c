#include "base/clock.h"

#include <time.h>

#include <algorithm>
#include <cmath>

namespace bitctl {

const Clock& system_clock() {
  static const Clock clock;
  return clock;
}

int64_t unix_seconds(Wall t) {
  return std::chrono::floor<std::chrono::seconds>(t).time_since_epoch().count();
}

double unix_seconds_precise(Wall t) {
  const auto ms = std::chrono::floor<std::chrono::milliseconds>(t).time_since_epoch().count();
  return static_cast<double>(ms) / 1000.0;
}

Duration time_asleep() {
  const auto read = [](clockid_t id) {
    timespec t{};
    ::clock_gettime(id, &t);
    return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
  };
  const Duration awake = read(CLOCK_MONOTONIC);
  return read(CLOCK_BOOTTIME) - awake;
}

double as_seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

Duration from_seconds(double seconds) {
  constexpr double kCentury = 100.0 * 365 * 86400;
  if (std::isnan(seconds)) return Duration::zero();
  return std::chrono::duration_cast<Duration>(
      std::chrono::duration<double>(std::clamp(seconds, -kCentury, kCentury)));
}

}  // namespace bitctl
