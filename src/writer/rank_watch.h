// Looks after what only some ranks have taken. A step that a rank has gone past without taking it is no
// checkpoint any more, and its slots are given back; where a rank is only late, it is waited for, and named
// after a minute.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/event_loop.h"
#include "checkpoint/ranks.h"

namespace bitctl {

class RankWatch {
 public:
  // `given_up`: it is no checkpoint any more; else it still waits.
  using Tell = std::function<void(const SlotView& slot, const std::string& reason, bool given_up)>;

  RankWatch(EventLoop& loop, const RankPages& pages, Tell tell)
      : loop_(loop), pages_(pages), tell_(std::move(tell)) {}
  ~RankWatch() { loop_.cancel(timer_); }

  void look(const RankViews& ranks);

 private:
  void await(std::optional<uint64_t> step);
  void on_late();

  EventLoop& loop_;
  const RankPages& pages_;
  Tell tell_;
  std::optional<uint64_t> awaited_;  // some rank has not taken it yet
  EventLoop::TimerId timer_ = 0;
  std::optional<uint64_t> refused_;  // the last one that was given up
};

}  // namespace bitctl
