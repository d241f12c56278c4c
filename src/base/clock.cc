#include "base/clock.h"

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

}  // namespace bitctl
