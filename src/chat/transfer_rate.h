// How fast something comes, and when it will be whole: from what came in the last seconds, not from hope.
// Pure: the caller says what time it is.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "base/clock.h"

namespace bitctl {

class TransferRate {
 public:
  // In all, so many bytes have come by now; what was there before is none of them.
  void saw(Mono now, uint64_t bytes);

  // Nothing before two seconds and a few packets were seen, nor while nothing comes.
  std::optional<double> bytes_per_second(Mono now) const;
  // How long nothing has come; nothing below five seconds.
  std::optional<Duration> stalled(Mono now) const;

 private:
  struct Seen {
    Mono when;
    uint64_t bytes;
  };
  std::deque<Seen> seen_;  // the first of each amount, of the last seconds and the one before
};

// "[=====>    ] 45% (2.1GB / 4.7GB), 35.2MB/s, 1m14s left", or ", stalled for 7s". Of an unknown total, what
// has come.
std::string transfer_text(uint64_t bytes, uint64_t total, const TransferRate& rate, Mono now);

}  // namespace bitctl
