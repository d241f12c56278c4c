#include "supervise/hang_watch.h"

#include <fmt/format.h>
#include <signal.h>
#include <spdlog/spdlog.h>

#include <algorithm>

namespace bitctl {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kLookEvery = seconds(1);
constexpr Duration kLate = milliseconds(500);  // a loop that comes later than that did not hear anybody
constexpr Duration kStacksLimit = seconds(2);
constexpr size_t kMostSpied = 8;                          // processes of the tree that are not connected
constexpr Duration kLastStacksLimit = milliseconds(300);  // once more, before it is killed

}  // namespace

void HangWatch::begin_attempt() {
  end_attempt();
  woken_ = extended_ = false;
  slept_ = time_asleep();
  stall_.begin_attempt(loop_.now());
  look_again();
}

void HangWatch::end_attempt() {
  loop_.cancel(timer_);
  stacks_.cancel();
  ++generation_;
  acting_ = suspects_ = false;
}

void HangWatch::look_again() {
  const Mono now = loop_.now();
  due_ = std::min(now + kLookEvery, stall_.worsens_at(now).value_or(Mono::max()));
  timer_ = loop_.call_at(due_, [this] { look(); });
}

void HangWatch::look() {
  const Mono now = loop_.now();
  // Time in which we ourselves, or the whole machine, did not run.
  if (now - due_ > kLate) stall_.excuse(now - due_ + kLookEvery);
  if (const Duration slept = time_asleep(); slept - slept_ > kLate) {
    stall_.excuse(stall_.judge(now).silent);
    slept_ = slept;
  }
  if (stall_.judge(now).kind != StallVerdict::Kind::healthy) {
    const uint64_t generation = generation_;
    callbacks_.catch_up();
    if (generation != generation_) return;
  }
  const StallVerdict verdict = stall_.judge(loop_.now());
  if (verdict.kind == StallVerdict::Kind::hung) {
    consider(verdict);
  } else if (verdict.kind == StallVerdict::Kind::suspected) {
    suspect(verdict);
  } else if (suspects_ && stall_.signs() != signs_) {
    // Really heard: a chance that it was given, or time that was excused, is no sign of life.
    suspects_ = woken_ = extended_ = false;
    callbacks_.record("recovered", {{"phase", name_of(verdict.phase)}});
  }
  if (!acting_) look_again();
}

Surroundings HangWatch::around() {
  Surroundings seen = look_around(callbacks_.tree());
  seen.frozen = seen.frozen || callbacks_.is_frozen();
  return seen;
}

void HangWatch::suspect(const StallVerdict& verdict) {
  if (suspects_) return;
  const Surroundings seen = around();
  if (seen.frozen) return;
  suspects_ = true;
  signs_ = stall_.signs();
  io_before_ = seen.io_bytes;
  callbacks_.record("suspected", {{"phase", name_of(verdict.phase)},
                                  {"silent", as_seconds(verdict.silent)},
                                  {"limit", as_seconds(verdict.limit)}});
  take_stacks(StackDump::Manner::ask, kStacksLimit, [] {});
}

void HangWatch::consider(const StallVerdict& verdict) {
  suspect(verdict);
  const Surroundings seen = around();
  switch (next_step(seen, io_before_, woken_, extended_)) {
    case StallStep::excuse:
      return stall_.excuse(verdict.silent);
    case StallStep::wake:
      woken_ = true;
      for (const pid_t pid : seen.stopped) ::kill(pid, SIGCONT);
      callbacks_.record("continued", {{"pids", seen.stopped}});
      return stall_.excuse(verdict.silent);
    case StallStep::extend:
      extended_ = true;
      callbacks_.record("extended", {{"cpu_pressure", seen.cpu_pressure},
                                     {"io_bytes", seen.io_bytes - std::min(seen.io_bytes, io_before_)}});
      return stall_.excuse(verdict.silent);
    case StallStep::act:
      break;
  }
  acting_ = true;
  take_stacks(StackDump::Manner::insist, kLastStacksLimit, [this, verdict] {
    acting_ = false;
    const uint64_t generation = generation_;
    callbacks_.catch_up();
    if (generation != generation_) return;
    if (!stacks_.has_signalled() && stall_.judge(loop_.now()).kind != StallVerdict::Kind::hung)
      return look_again();
    callbacks_.record("hang", {{"phase", name_of(verdict.phase)},
                               {"silent", as_seconds(verdict.silent)},
                               {"limit", as_seconds(verdict.limit)}});
    callbacks_.on_hang();
  });
}

void HangWatch::take_stacks(StackDump::Manner manner, Duration limit, std::function<void()> then) {
  auto pids = callbacks_.tree();
  pids.resize(std::min(pids.size(), kMostSpied));
  stacks_.take(manner, pids, limit, [this, then = std::move(then)](const std::vector<Stacks>& all) {
    for (const Stacks& stacks : all) {
      spdlog::warn("stacks of pid {}:\n{}", stacks.pid, stacks.text);
      callbacks_.record("stacks", {{"pid", stacks.pid}, {"text", stacks.text}});
    }
    then();
  });
}

}  // namespace bitctl
