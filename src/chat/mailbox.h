// Values from other threads to the event loop, in order. The loop watches fd() and takes what is there.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <mutex>
#include <utility>
#include <vector>

#include "base/fd.h"

namespace bitctl {

template <typename T>
class Mailbox {
 public:
  Mailbox() : wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

  int fd() const { return wake_.get(); }

  void post(T value) {
    const std::lock_guard guard(mutex_);
    values_.push_back(std::move(value));
    ::eventfd_write(wake_.get(), 1);  // under the lock: else a take() before it leaves a wake-up for nothing
  }

  // Not empty where fd() is readable.
  std::vector<T> take() {
    const std::lock_guard guard(mutex_);
    eventfd_t ignored = 0;
    ::eventfd_read(wake_.get(), &ignored);
    return std::exchange(values_, {});
  }

 private:
  Fd wake_;
  std::mutex mutex_;
  std::vector<T> values_;
};

}  // namespace bitctl
