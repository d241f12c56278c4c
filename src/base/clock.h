// Two clocks: deadlines run on the monotonic one, what is written down carries the wall one.
#pragma once

#include <chrono>
#include <cstdint>

namespace bitctl {

using Mono = std::chrono::steady_clock::time_point;
using Wall = std::chrono::system_clock::time_point;
using Duration = std::chrono::nanoseconds;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Mono monotonic() const { return std::chrono::steady_clock::now(); }
  virtual Wall wall() const { return std::chrono::system_clock::now(); }
};

// The machine's clock.
const Clock& system_clock();

// Unix time in whole seconds, rounded down; in seconds with millisecond resolution.
int64_t unix_seconds(Wall t);
double unix_seconds_precise(Wall t);

// How long the machine has slept since it started (BOOTTIME − MONOTONIC).
Duration time_asleep();

double as_seconds(Duration duration);
// Never more than a hundred years to either side, and 0 for NaN: what comes from a file or a message may be
// any number.
Duration from_seconds(double seconds);

}  // namespace bitctl
