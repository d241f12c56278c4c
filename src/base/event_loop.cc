#include "base/event_loop.h"

#include <sys/signalfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <vector>

namespace bitctl {

EventLoop::EventLoop() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}

void EventLoop::watch(int fd, uint32_t events, OnReady on_ready) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  const bool known = watched_.contains(fd);
  watched_[fd] = std::make_shared<OnReady>(std::move(on_ready));
  ::epoll_ctl(epoll_.get(), known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
}

void EventLoop::unwatch(int fd) {
  if (watched_.erase(fd) > 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

EventLoop::TimerId EventLoop::call_at(Mono when, OnTime on_time) {
  timers_[next_timer_] = {when, std::move(on_time)};
  return next_timer_++;
}

EventLoop::TimerId EventLoop::call_after(Duration delay, OnTime on_time) {
  return call_at(now() + delay, std::move(on_time));
}

void EventLoop::cancel(TimerId id) { timers_.erase(id); }

int EventLoop::wait_ms(Mono until) const {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, INT_MAX));
}

void EventLoop::run_once() { run_once(std::chrono::hours(24)); }

void EventLoop::run_once(Duration limit) {
  Mono until = now() + limit;
  for (const auto& [id, timer] : timers_) until = std::min(until, timer.when);
  std::array<epoll_event, 32> events;
  const int n = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), wait_ms(until));
  for (int i = 0; i < n; ++i) {
    // An earlier callback of this round may have unwatched it; the shared pointer keeps a running one alive.
    const auto found = watched_.find(events[i].data.fd);
    if (found == watched_.end()) continue;
    const auto on_ready = found->second;
    (*on_ready)(events[i].events);
  }
  run_due_timers();
}

void EventLoop::run_due_timers() {
  std::vector<std::pair<Mono, TimerId>> due;
  for (const auto& [id, timer] : timers_)
    if (timer.when <= now()) due.emplace_back(timer.when, id);
  std::sort(due.begin(), due.end());
  for (const auto& [when, id] : due) {
    const auto found = timers_.find(id);
    if (found == timers_.end()) continue;
    const OnTime on_time = std::move(found->second.on_time);
    timers_.erase(found);
    on_time();
  }
}

void EventLoop::run() {
  stopped_ = false;
  while (!stopped_) run_once();
}

Fd block_and_watch_signals(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : signals) sigaddset(&set, signal);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

int next_signal(int signal_fd) {
  signalfd_siginfo info{};
  return ::read(signal_fd, &info, sizeof info) == static_cast<ssize_t>(sizeof info)
             ? static_cast<int>(info.ssi_signo)
             : 0;
}

}  // namespace bitctl
