// A PULSE file that the trainer writes on its own: looked at every second, in a thread, since it may lie on
// any disk.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/event_loop.h"
#include "base/worker.h"
#include "pulse/read.h"

namespace bitctl {

class PulseSource {
 public:
  // `on_status`: each new content that is not older than `since` (Unix seconds): what an earlier run left is
  // not news. `on_trouble`: once for each damage, with path, byte and reason.
  PulseSource(EventLoop& loop, std::string path, std::function<void(const PulseStatus&)> on_status,
              std::function<void(const std::string&)> on_trouble);
  ~PulseSource();

  void start(int64_t since);
  // Looks once more, now; `done` is called when what it found has been told.
  void look(std::function<void()> done = [] {});

 private:
  void take(const PulseRead& read);
  void tick();

  EventLoop& loop_;
  std::string path_;
  std::function<void(const PulseStatus&)> on_status_;
  std::function<void(const std::string&)> on_trouble_;
  int64_t since_ = 0;
  std::optional<PulseStatus> last_;
  std::string trouble_;
  EventLoop::TimerId timer_ = 0;
  Inbox inbox_;
  Worker reader_;
};

}  // namespace bitctl
