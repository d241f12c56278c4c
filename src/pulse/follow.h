// Following a PULSE file: what to tell after each read, and when to stop. The rules are pure; Follower is the
// thin edge that reads the file when something may have changed.
#pragma once

#include <spdlog/common.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/event_loop.h"
#include "base/fd.h"
#include "pulse/read.h"

namespace bitctl {

constexpr Duration kHeartbeat = std::chrono::seconds(10);  // an unchanged status is told again after this
constexpr Duration kFollowInterval = std::chrono::seconds(2);

// How a follow ends. `stopped`: the status went from running to idle.
enum class FollowEnd { done, error, stale, stopped };

struct FollowLog {
  spdlog::level::level_enum level;
  std::string text;
};

struct FollowStep {
  std::optional<PulseStatus> emit;  // tell this now
  std::optional<FollowEnd> end;     // and then end
  std::vector<FollowLog> log;
};

// The first good status is told at once, then every change, and the same again 10 s after the last telling.
// Where the file becomes missing or damaged the last good status stands in for it, and it ages too.
class FollowState {
 public:
  FollowStep step(Mono now_mono, Wall now_wall, const PulseRead& read);

  // When an unchanged status is due again; nothing before the first one.
  std::optional<Mono> heartbeat_due() const;
  // What was told last.
  const std::optional<PulseStatus>& last() const { return emitted_; }

 private:
  void take(const PulseGood& good, FollowStep& step);
  void note_trouble(const PulseDamaged* damaged, Mono now, FollowStep& step);  // nullptr: missing

  std::optional<PulseStatus> good_;     // as the file said it
  std::optional<PulseStatus> emitted_;  // as it was told: a stale one reads as error
  Mono emitted_at_{};
  std::string trouble_;  // what is wrong with the file now; empty where nothing is
  std::optional<Mono> noted_at_;
  bool stale_ = false;
  bool unknown_keys_noted_ = false;
};

// Reads at once, then whenever inotify says that the file has changed, and every `interval` all the same:
// file systems of other machines give no events, and a status ages without one. Lives in the loop's thread.
class Follower {
 public:
  using OnStep = std::function<void(const FollowStep&)>;

  // Nothing is read before start(). After a step with an `end` the follower sleeps. `on_step` must not
  // destroy it.
  Follower(EventLoop& loop, std::string path, Duration interval, OnStep on_step,
           const Clock& clock = system_clock());
  ~Follower();
  Follower(const Follower&) = delete;

  void start();
  const FollowState& state() const { return state_; }

 private:
  void read();
  void read_at(Mono when);
  void watch_folder(FollowStep& step);
  void on_events();
  void forget_folder();
  void sleep();

  EventLoop& loop_;
  std::string path_;
  Duration interval_;
  OnStep on_step_;
  const Clock& clock_;
  FollowState state_;
  Fd inotify_;
  int watch_ = -1;
  bool watch_trouble_noted_ = false;
  Mono last_read_{};
  std::optional<EventLoop::TimerId> timer_;
  Mono timer_at_{};
};

}  // namespace bitctl
