#include "base/worker.h"

#include <sys/eventfd.h>
#include <unistd.h>

namespace bitctl {

Inbox::Inbox(EventLoop& loop) : loop_(loop), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  loop_.watch(wake_.get(), EPOLLIN, [this](uint32_t) { run_posted(); });
}

Inbox::~Inbox() { loop_.unwatch(wake_.get()); }

void Inbox::post(std::function<void()> in_loop) {
  {
    const std::lock_guard guard(mutex_);
    posted_.push_back(std::move(in_loop));
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
}

void Inbox::run_posted() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t n = ::read(wake_.get(), &count, sizeof count);
  std::deque<std::function<void()>> due;
  {
    const std::lock_guard guard(mutex_);
    due.swap(posted_);
  }
  for (const auto& run : due) run();
}

Worker::Worker() : thread_([this] { run(); }) {}

Worker::~Worker() {
  {
    const std::lock_guard guard(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Worker::post(std::function<void()> job) {
  {
    const std::lock_guard guard(mutex_);
    jobs_.push_back(std::move(job));
  }
  changed_.notify_all();
}

void Worker::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    const auto job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job();
    lock.lock();
  }
}

}  // namespace bitctl
