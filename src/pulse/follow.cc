#include "pulse/follow.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/replace_file.h"
#include "base/visible_text.h"

namespace bitctl {
namespace {

namespace level = spdlog::level;

// A writer that publishes without pause is read this often, not at each of its renames.
constexpr Duration kShortestPause = std::chrono::milliseconds(100);
constexpr uint32_t kFolderGone = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT;

// All six fields in a line that steers no terminal.
std::string json_text(const PulseStatus& status) {
  std::string text = to_file_bytes(status);
  text.pop_back();
  return visible_text(text);
}

std::optional<FollowEnd> end_of(const std::optional<PulseStatus>& before, const PulseStatus& now,
                                bool stale) {
  if (stale) return FollowEnd::stale;
  if (now.status == TrainingState::error) return FollowEnd::error;
  if (now.status == TrainingState::done) return FollowEnd::done;
  if (now.status == TrainingState::idle && before && before->status == TrainingState::running)
    return FollowEnd::stopped;
  return std::nullopt;
}

}  // namespace

void FollowState::note_trouble(const PulseDamaged* damaged, Mono now, FollowStep& step) {
  const std::string trouble = damaged
                                  ? fmt::format("Failed to {} training status: {}",
                                                damaged->readable ? "parse" : "read", damage_text(*damaged))
                                  : "missing";
  if (trouble == trouble_) return;
  const bool begins = trouble_.empty();
  trouble_ = trouble;
  // A file that is broken at every other read must not flood the log.
  if (noted_at_ && now - *noted_at_ < kHeartbeat) return;
  if (damaged) step.log.push_back({level::warn, trouble});
  if (good_ && begins)
    step.log.push_back({level::warn, fmt::format("Training status file unreadable, using cached status: {}",
                                                 state_name(good_->status))});
  if (!step.log.empty()) noted_at_ = now;
}

void FollowState::take(const PulseGood& good, FollowStep& step) {
  good_ = good.status;
  trouble_.clear();
  if (good.unknown_keys.empty() || std::exchange(unknown_keys_noted_, true)) return;
  step.log.push_back(
      {level::warn, visible_text(fmt::format("Keys that PULSE v1 does not know are ignored: {}",
                                             fmt::join(good.unknown_keys, ", ")))});
}

FollowStep FollowState::step(Mono now_mono, Wall now_wall, const PulseRead& read) {
  FollowStep step;
  if (const auto* good = std::get_if<PulseGood>(&read))
    take(*good, step);
  else
    note_trouble(std::get_if<PulseDamaged>(&read), now_mono, step);
  if (!good_) return step;

  const bool was_stale = std::exchange(stale_, is_stale(*good_, unix_seconds(now_wall)));
  if (stale_ && !was_stale)
    step.log.push_back({level::warn, "Training status is stale (>60s), converting to error"});
  const PulseStatus status = stale_ ? as_stale(*good_) : *good_;

  const bool due = !emitted_ || *emitted_ != status || now_mono - emitted_at_ >= kHeartbeat;
  if (!due) return step;
  step.end = end_of(emitted_, status, stale_);
  step.emit = status;
  emitted_ = status;
  emitted_at_ = now_mono;
  step.log.push_back(
      {level::info, fmt::format("Emitting training status: {} (epoch {}/{})", state_name(status.status),
                                status.epoch, status.total_epochs)});
  step.log.push_back({level::debug, "[TrainingPanel] Status update: " + json_text(status)});
  if (step.end)
    step.log.push_back(
        {level::info, fmt::format("Training finished with status: {}", state_name(status.status))});
  return step;
}

std::optional<Mono> FollowState::heartbeat_due() const {
  return emitted_ ? std::optional(emitted_at_ + kHeartbeat) : std::nullopt;
}

Follower::Follower(EventLoop& loop, std::string path, Duration interval, OnStep on_step, const Clock& clock)
    : loop_(loop),
      path_(std::move(path)),
      interval_(interval),
      on_step_(std::move(on_step)),
      clock_(clock),
      inotify_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
  if (inotify_) loop_.watch(inotify_.get(), EPOLLIN, [this](uint32_t) { on_events(); });
}

Follower::~Follower() { sleep(); }

void Follower::start() { read(); }

void Follower::sleep() {
  if (timer_) loop_.cancel(*std::exchange(timer_, std::nullopt));
  if (inotify_) loop_.unwatch(inotify_.get());
  inotify_.reset();
}

void Follower::read() {
  FollowStep watched;
  watch_folder(watched);  // before the read: what changes after it gives an event
  last_read_ = loop_.now();
  FollowStep step = state_.step(last_read_, clock_.wall(), read_pulse(path_));
  step.log.insert(step.log.begin(), watched.log.begin(), watched.log.end());
  if (step.end)
    sleep();
  else
    read_at(std::min(last_read_ + interval_, state_.heartbeat_due().value_or(Mono::max())));
  on_step_(step);
}

void Follower::read_at(Mono when) {
  if (timer_) loop_.cancel(*timer_);
  timer_at_ = when;
  timer_ = loop_.call_at(when, [this] {
    timer_.reset();
    read();
  });
}

// The folder may appear, vanish or be replaced while it is followed; until it is there the interval serves.
void Follower::watch_folder(FollowStep& step) {
  if (!inotify_ || watch_ >= 0) return;
  watch_ = ::inotify_add_watch(
      inotify_.get(), folder_of(path_).c_str(),
      IN_MOVED_TO | IN_MOVED_FROM | IN_CLOSE_WRITE | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR);
  if (watch_ >= 0 || errno == ENOENT || errno == ENOTDIR || watch_trouble_noted_) return;
  watch_trouble_noted_ = true;
  step.log.push_back({level::warn, fmt::format("Polling error: no events for {}: {}; it is read every {:g}s",
                                               visible_text(folder_of(path_)), std::strerror(errno),
                                               as_seconds(interval_))});
}

void Follower::forget_folder() {
  if (watch_ >= 0) ::inotify_rm_watch(inotify_.get(), std::exchange(watch_, -1));
}

void Follower::on_events() {
  const std::string name = filename_of(path_);
  bool ours = false;
  alignas(inotify_event) char buffer[4096];
  for (ssize_t size; (size = ::read(inotify_.get(), buffer, sizeof buffer)) > 0;) {
    for (ssize_t at = 0; at < size;) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
      at += static_cast<ssize_t>(sizeof *event + event->len);
      if (event->mask & kFolderGone) forget_folder();
      ours = ours || (event->mask & (kFolderGone | IN_Q_OVERFLOW)) || (event->len > 0 && name == event->name);
    }
  }
  const Mono when = std::max(loop_.now(), last_read_ + kShortestPause);
  if (ours && (!timer_ || when < timer_at_)) read_at(when);
}

}  // namespace bitctl
