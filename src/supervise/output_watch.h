// Whether the attempt's log grows: the one sign of life of a script that reports nothing. Looked at every
// second, in a thread, since it may lie on any disk.
#pragma once

#include <functional>
#include <string>

#include "base/event_loop.h"
#include "base/worker.h"

namespace bitctl {

class OutputWatch {
 public:
  OutputWatch(EventLoop& loop, std::function<void()> on_growth);
  ~OutputWatch();

  void start(std::string path);
  void stop();

 private:
  void look();
  void take(const std::string& path, int64_t size);

  EventLoop& loop_;
  std::function<void()> on_growth_;
  std::string path_;
  int64_t size_ = 0;
  EventLoop::TimerId timer_ = 0;
  Inbox inbox_;
  Worker reader_;
};

}  // namespace bitctl
