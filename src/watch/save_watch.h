// Whether a snapshot stays in memory longer than a save takes: the disk, or the writer, does not answer.
// Pure.
#pragma once

#include <algorithm>
#include <chrono>
#include <optional>

#include "base/clock.h"

namespace bitctl {

class SaveWatch {
 public:
  static constexpr Duration kLeast = std::chrono::seconds(60);

  // Once a second, so that a time in which we did not run ourselves counts for nothing. `waiting`: a complete
  // snapshot is not durable. How long nothing has been saved, where that is news: once until saved().
  std::optional<Duration> look(bool waiting, Duration longest_save) {
    seconds_ = waiting ? seconds_ + 1 : 0;
    const Duration limit = std::max(kLeast, 3 * longest_save);
    if (told_ || std::chrono::seconds(seconds_) < limit) return std::nullopt;
    told_ = true;
    return std::chrono::seconds(seconds_);
  }
  // A snapshot has become durable, or is known to have failed.
  void saved() { *this = SaveWatch(); }

 private:
  int seconds_ = 0;
  bool told_ = false;
};

}  // namespace bitctl
