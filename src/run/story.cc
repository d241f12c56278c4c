#include "run/story.h"

#include <algorithm>
#include <cerrno>

namespace bitctl {
namespace {

constexpr uint64_t kStoppedCode = 75;

}  // namespace

bool AttemptStory::went_wrong() const {
  if (!violation.empty() || !spawn_failure.empty() || hang || non_finite_step) return true;
  if (!has_ended || asked_to_leave) return false;
  return !signal.empty() || (code && *code != 0 && *code != kStoppedCode);
}

bool AttemptStory::ran_out_of_memory() const {
  return !hang && bitctl::ran_out_of_memory(memory, signal == "SIGKILL");
}

AttemptStory& Story::attempt_of(const Json& row) {
  const int number = static_cast<int>(get_unsigned(row, "attempt").value_or(0));
  if (attempts.empty() || attempts.back().attempt != number) attempts.push_back({.attempt = number});
  return attempts.back();
}

void Story::apply(const Json& row) {
  const std::string kind = get_text(row, "kind");
  const auto step = get_unsigned(row, "step");
  if (kind == "spawned") {
    attempt_of(row);
  } else if (kind == "spawn_failed") {
    attempt_of(row).spawn_failure = get_text(row, "reason");
  } else if (kind == "progress") {
    if (step) attempt_of(row).step = step;
  } else if (kind == "resumed") {
    attempt_of(row).step = step;
    resumed_step = step;
    resumed_from = get_text(row, "source");
  } else if (kind == "error") {
    AttemptStory& a = attempt_of(row);
    a.exception = get_text(row, "exception");
    a.exception_type = get_text(row, "exception_type");
    a.frame = get_text(row, "frame");
  } else if (kind == "violation") {
    attempt_of(row).violation = get_text(row, "reason");
  } else if (kind == "hang") {
    attempt_of(row).hang = Hang{get_text(row, "phase"), get_finite(row, "silent").value_or(0),
                                get_finite(row, "limit").value_or(0), get_text(row, "reason")};
  } else if (kind == "stacks") {
    attempt_of(row).stacks = true;
  } else if (kind == "stop_requested" || kind == "restart_requested") {
    attempt_of(row).asked_to_leave = true;
  } else if (kind == "exited") {
    AttemptStory& a = attempt_of(row);
    a.has_ended = true;
    a.signal = get_text(row, "signal");
    a.code = get_unsigned(row, "code");
    a.memory = {get_unsigned(row, "memory_peak").value_or(0), get_unsigned(row, "memory_limit").value_or(0),
                get_unsigned(row, "oom_kills").value_or(0)};
  } else if (kind == "waiting") {
    ++restarts;
  } else if (kind == "rolled_back") {
    rolled_back = step;
    attempt_of(row).non_finite_step = get_unsigned(row, "from");
  } else if (kind == "checkpoint_bad") {
    if (step) bad_checkpoints.push_back(*step);
  } else if (kind == "committed") {
    checkpoint_step = step;
    persist_trouble.clear();
    disk_full = false;
  } else if (kind == "persist_failed") {
    persist_trouble = get_text(row, "reason");
    const auto error = get_unsigned(row, "errno");
    disk_full = error == ENOSPC || error == EDQUOT;
  } else if (kind == "failed") {
    failure = get_text(row, "reason");
    const auto code = get_unsigned(row, "exit_code");
    exit_code = code ? std::optional(static_cast<int>(*code)) : std::nullopt;
  } else if (kind == "supervising") {
    failure.clear();
    exit_code.reset();
  }
}

const AttemptStory* Story::last_failure() const {
  const auto found =
      std::find_if(attempts.rbegin(), attempts.rend(), [](const auto& a) { return a.went_wrong(); });
  return found == attempts.rend() ? nullptr : &*found;
}

}  // namespace bitctl
