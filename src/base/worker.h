// Threads beside an event loop: work goes to a Worker, its results come back through the loop's Inbox.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "base/event_loop.h"

namespace bitctl {

// Runs functions in the loop's thread, posted from any thread. Outlives everybody who posts.
class Inbox {
 public:
  explicit Inbox(EventLoop& loop);
  ~Inbox();
  void post(std::function<void()> in_loop);

 private:
  void run_posted();

  EventLoop& loop_;
  Fd wake_;
  std::mutex mutex_;
  std::deque<std::function<void()>> posted_;
};

// One thread that runs jobs in order; the destructor finishes those already queued.
class Worker {
 public:
  Worker();
  ~Worker();
  void post(std::function<void()> job);

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace bitctl
