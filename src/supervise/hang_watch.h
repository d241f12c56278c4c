// From silence to a verdict that is acted on: asks watch/stall_watch.h, looks for other reasons, takes
// stacks.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/strict_json.h"
#include "supervise/stack_dump.h"
#include "watch/stall_watch.h"
#include "watch/surroundings.h"

namespace bitctl {

class HangWatch {
 public:
  struct Callbacks {
    std::function<void(std::string_view kind, Json fields)> record;
    std::function<std::vector<pid_t>()> tree;  // of the attempt
    std::function<bool()> is_frozen;           // by a cgroup
    std::function<void()> catch_up;            // takes in everything that has been said and not yet been read
    std::function<void()> on_hang;             // stacks are taken, the row `hang` is written: end it
  };

  HangWatch(EventLoop& loop, StallRules rules, Callbacks callbacks)
      : loop_(loop), callbacks_(std::move(callbacks)), stall_(rules), stacks_(loop) {}
  ~HangWatch() { end_attempt(); }

  void begin_attempt();
  // Whatever happens now, it is no hang.
  void end_attempt();

  StallWatch& stall() { return stall_; }
  StackDump& stacks() { return stacks_; }
  bool suspects() const { return suspects_; }

 private:
  void look();
  void look_again();
  Surroundings around();
  void suspect(const StallVerdict& verdict);
  void consider(const StallVerdict& verdict);
  void take_stacks(StackDump::Manner manner, Duration limit, std::function<void()> then);

  EventLoop& loop_;
  Callbacks callbacks_;
  StallWatch stall_;
  StackDump stacks_;
  bool suspects_ = false;
  uint64_t signs_ = 0;       // of the trainer when it was suspected
  uint64_t generation_ = 0;  // grows where an attempt begins or ends: what began before it is over
  bool woken_ = false;
  bool extended_ = false;
  uint64_t io_before_ = 0;  // when it was suspected
  bool acting_ = false;
  Mono due_;          // when the next look should take place
  Duration slept_{};  // by the machine, since it started
  EventLoop::TimerId timer_ = 0;
};

}  // namespace bitctl
