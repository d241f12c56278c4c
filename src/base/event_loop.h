// One thread on epoll: descriptors and deadlines in, callbacks out. Signals arrive as a descriptor like any
// other.
#pragma once

#include <sys/epoll.h>

#include <csignal>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>

#include "base/clock.h"
#include "base/fd.h"

namespace bitctl {

class EventLoop {
 public:
  using OnReady = std::function<void(uint32_t events)>;
  using OnTime = std::function<void()>;
  using TimerId = uint64_t;

  EventLoop();

  // The descriptor stays the caller's; unwatch it before closing it. A callback may watch and unwatch
  // anything.
  void watch(int fd, uint32_t events, OnReady on_ready);
  void unwatch(int fd);

  TimerId call_at(Mono when, OnTime on_time);
  TimerId call_after(Duration delay, OnTime on_time);
  void cancel(TimerId id);

  // Waits for the next descriptor or deadline and runs what is due; at most `limit` long.
  void run_once(Duration limit);
  void run_once();
  // Until stop() was called.
  void run();
  void stop() { stopped_ = true; }

  Mono now() const { return std::chrono::steady_clock::now(); }

 private:
  struct Timer {
    Mono when;
    OnTime on_time;
  };

  void run_due_timers();
  int wait_ms(Mono until) const;

  Fd epoll_;
  std::map<int, std::shared_ptr<OnReady>> watched_;
  std::map<TimerId, Timer> timers_;
  TimerId next_timer_ = 1;
  bool stopped_ = false;
};

// Blocks the signals in this thread (and in every thread started later) and returns a signalfd for them.
Fd block_and_watch_signals(std::initializer_list<int> signals);
// The number of the next pending signal, 0 where there is none.
int next_signal(int signal_fd);

}  // namespace bitctl
