#include "watch/stall_watch.h"

#include <algorithm>

namespace bitctl {
namespace {

using std::chrono::seconds;

constexpr Duration kLeastSuspicion = seconds(2);
constexpr Duration kLeastStall = seconds(60);

constexpr std::pair<Phase, std::string_view> kNames[] = {{Phase::init, "init"},
                                                         {Phase::train, "train"},
                                                         {Phase::eval, "eval"},
                                                         {Phase::checkpoint, "checkpoint"},
                                                         {Phase::busy, "busy"}};

}  // namespace

std::string_view name_of(Phase phase) { return kNames[static_cast<size_t>(phase)].second; }

std::optional<Phase> phase_from(std::string_view name) {
  for (const auto& [phase, its_name] : kNames)
    if (its_name == name) return phase;
  return std::nullopt;
}

void StallWatch::begin_attempt(Mono now) {
  phase_ = Phase::init;
  at_most_.reset();
  connected_ = resumes_ = ends_ = false;
  last_step_.reset();
  last_sign_ = now;
  gap_count_ = 0;
}

void StallWatch::mark(Mono now) {
  Duration& longest = longest_[phase_];
  longest = std::max(longest, now - last_sign_);
  last_sign_ = now;
  ++signs_;
}

void StallWatch::connected(Mono now) {
  connected_ = true;
  mark(now);
}

void StallWatch::ends(std::optional<Duration> at_most, Mono now) {
  enter(Phase::busy, at_most, now);
  ends_ = true;
}

void StallWatch::disconnected(Mono now) {
  if (ends_) return;  // as it should
  mark(now);
  connected_ = false;
  phase_ = Phase::init;
  at_most_.reset();
}

void StallWatch::made(uint64_t step, Mono when) {
  if (!connected_ || !last_step_ || step <= *last_step_ || when <= last_sign_) return;
  last_step_ = step;
  last_sign_ = when;
  ++signs_;
}

void StallWatch::step(uint64_t step, Mono now) {
  connected_ = true;
  if (last_step_ == step) {
    if (phase_ == Phase::eval) mark(now);
    return;
  }
  if (ends_) enter(Phase::train, std::nullopt, now);
  const bool first = !last_step_ || step < *last_step_;
  last_step_ = step;
  const Duration gap = now - last_sign_;
  const bool in_steps = phase_ == Phase::train || (phase_ == Phase::init && !first);
  mark(now);
  if (phase_ != Phase::init && phase_ != Phase::train) return;
  if (in_steps) gaps_[gap_count_++ % kWindow] = gap;
  if (gap_count_ < kLearned) return;
  phase_ = Phase::train;
  if (resumes_)
    knows_resumes_ = true;
  else
    known_.insert(Phase::init);
}

void StallWatch::enter(Phase phase, std::optional<Duration> at_most, Mono now) {
  connected_ = true;
  mark(now);
  if (phase_ != Phase::init) known_.insert(phase_);
  // Back at work, it has learned what it had learned.
  ends_ = false;
  phase_ = phase == Phase::train && gap_count_ < kLearned ? Phase::init : phase;
  at_most_ = at_most;
}

void StallWatch::sign(Mono now) { mark(now); }

void StallWatch::excuse(Duration lost) { last_sign_ += lost; }

Duration StallWatch::p99() const {
  const size_t count = std::min(gap_count_, kWindow);
  auto sorted = gaps_;
  std::sort(sorted.begin(), sorted.begin() + count);
  return count == 0 ? Duration::zero() : sorted[(count * 99 + 99) / 100 - 1];
}

std::optional<Duration> StallWatch::hung_after() const {
  if (!rules_.enabled) return std::nullopt;
  if (at_most_) return at_most_;
  if (phase_ == Phase::busy) return std::nullopt;
  // Without a report there are only a start that may take its time, and output.
  if (!connected_ || (rules_.stall && phase_ != Phase::init)) return rules_.stall;
  const auto seen = longest_.find(phase_);
  const Duration longest = seen == longest_.end() ? Duration::zero() : seen->second;
  const Duration limit = std::max({kLeastStall, 3 * longest, rules_.stall.value_or(Duration::zero())});
  if (phase_ == Phase::train) return std::max(limit, 5 * p99());
  const bool is_known = phase_ == Phase::init && resumes_ ? knows_resumes_ : known_.contains(phase_);
  return is_known ? limit : std::max(limit, kFirstTime);
}

Duration StallWatch::suspected_after(Duration hung_after) const {
  if (phase_ == Phase::train) return std::min(hung_after, std::max(kLeastSuspicion, 5 * p99()));
  return at_most_ ? hung_after : hung_after / 2;
}

StallVerdict StallWatch::judge(Mono now) const {
  StallVerdict verdict{.phase = phase_, .silent = std::max(Duration::zero(), now - last_sign_)};
  const auto hung = hung_after();
  if (!hung) return verdict;
  const Duration suspected = suspected_after(*hung);
  if (verdict.silent >= *hung) {
    verdict.kind = StallVerdict::Kind::hung;
    verdict.limit = *hung;
  } else if (verdict.silent >= suspected) {
    verdict.kind = StallVerdict::Kind::suspected;
    verdict.limit = suspected;
  }
  return verdict;
}

std::optional<Mono> StallWatch::worsens_at(Mono now) const {
  const auto hung = hung_after();
  if (!hung) return std::nullopt;
  for (const Duration limit : {suspected_after(*hung), *hung})
    if (last_sign_ + limit > now) return last_sign_ + limit;
  return std::nullopt;
}

}  // namespace bitctl
