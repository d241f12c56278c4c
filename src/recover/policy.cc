#include "recover/policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>

#include "base/exit_code.h"
#include "base/text.h"

namespace bitctl {
namespace {

bool made_progress(const AttemptRecord& attempt) {
  return attempt.snapshot && (!attempt.snapshot_before || *attempt.snapshot > *attempt.snapshot_before);
}

// Attempts at the end of the list during which no higher snapshot came to be.
int attempts_without_progress(const std::vector<AttemptRecord>& attempts) {
  int count = 0;
  for (size_t i = attempts.size(); i-- > 0;) {
    if (made_progress(attempts[i])) return count;
    if (!attempts[i].restart_asked) ++count;
  }
  return count;
}

bool ran_out_of_memory(const AttemptRecord& attempt) {
  return !attempt.hang && ran_out_of_memory(attempt.memory, attempt.signalled && attempt.code == SIGKILL);
}

// Once may be a neighbour's fault; a leak that lets the run get on is worth a restart each time.
bool runs_out_of_memory_again(const std::vector<AttemptRecord>& attempts) {
  return attempts.size() >= 2 && ran_out_of_memory(attempts.back()) &&
         ran_out_of_memory(attempts[attempts.size() - 2]) && !made_progress(attempts.back());
}

// The same traceback, or the same own exit code, at the same known step, twice in a row.
bool fails_the_same_way(const std::vector<AttemptRecord>& attempts) {
  if (attempts.size() < 2) return false;
  const AttemptRecord& a = attempts[attempts.size() - 2];
  const AttemptRecord& b = attempts.back();
  const auto step_is_known = [](const AttemptRecord& r) { return r.reports_progress || r.connected; };
  if (a.signalled || b.signalled || !step_is_known(a) || !step_is_known(b) || a.last_step != b.last_step)
    return false;
  return a.error_key.empty() && b.error_key.empty() ? a.code == b.code : a.error_key == b.error_key;
}

bool is_users_mistake(const RestartRules& rules, const AttemptRecord& attempt) {
  const auto& never = rules.never_on;
  if (!attempt.signalled && std::find(never.begin(), never.end(), attempt.code) != never.end()) return true;
  return attempt.error_type == "SyntaxError" || attempt.error_type == "ModuleNotFoundError" ||
         attempt.error_type == "FileNotFoundError" || attempt.error_type == "IndentationError";
}

Duration delay_for(const RestartRules& rules, int without_progress, double jitter) {
  if (without_progress <= 1) return Duration::zero();
  const int doublings = std::min(without_progress - 2, 30);
  const Duration base = std::min(rules.backoff_max, rules.backoff * (int64_t{1} << doublings));
  return base + std::chrono::duration_cast<Duration>(base * (0.25 * jitter));
}

bool was_not_finite_before(const std::vector<AttemptRecord>& attempts) {
  return attempts.size() >= 2 &&
         attempts[attempts.size() - 2].non_finite_step == attempts.back().non_finite_step;
}

}  // namespace

std::string describe_end(const AttemptRecord& attempt) {
  if (!attempt.violation.empty()) return attempt.violation;
  if (attempt.non_finite_step)
    return fmt::format("the loss was not finite at step {}", *attempt.non_finite_step);
  const std::string memory = describe(attempt.memory);
  std::string text = attempt.hang ? "hung"
                     : ran_out_of_memory(attempt)
                         ? "ran out of memory and was killed" + (memory.empty() ? "" : " (" + memory + ")")
                     : attempt.signalled ? "killed by " + signal_name(attempt.code)
                                         : fmt::format("exit code {}", attempt.code);
  if (attempt.reports_progress) text += fmt::format(" at step {}", attempt.last_step);
  if (!attempt.error.empty()) text += ": " + attempt.error;
  return text;
}

Decision decide(const RestartRules& rules, const std::vector<AttemptRecord>& attempts, double jitter) {
  const AttemptRecord& last = attempts.back();
  Decision decision;
  decision.reason = describe_end(last);
  decision.exit_code = last.hang ? kHang : last.signalled ? 128 + last.code : last.code;
  const bool exited_well = !last.signalled && last.code == 0;
  if (last.non_finite_step) decision.exit_code = kOwnFailure;
  const bool end_was_asked_for = last.stop_asked || last.restart_asked;

  if (!last.violation.empty()) {
    decision.exit_code = kOwnFailure;
    return decision;
  }
  if (last.non_finite_step && !last.stop_asked) {
    if (!last.snapshot) {
      decision.reason += ", and there is no checkpoint before it whose tensors are all finite";
      return decision;
    }
    if (was_not_finite_before(attempts)) {
      decision.reason +=
          " again, though it was rolled back; watchdog.nan skips only data that restore(data=…) names";
      return decision;
    }
  } else if (exited_well && (last.reached_end || (!last.reports_progress && !end_was_asked_for))) {
    decision.kind = Decision::Kind::done;
    decision.exit_code = kOk;
    return decision;
  }
  if (last.restart_asked) {
    decision.kind = Decision::Kind::restart;
    decision.without_progress = attempts_without_progress(attempts);
    decision.reason = "asked for by bitctl restart";
    return decision;
  }
  // Exit code 0 short of the end, or 75, is a stop whoever asked for it.
  const bool left = exited_well || (!last.signalled && last.code == kStopped);
  if (last.stop_asked || (left && !last.non_finite_step)) {
    decision.kind = Decision::Kind::stopped;
    decision.exit_code = kStopped;
    return decision;
  }
  if (!rules.on_failure || is_users_mistake(rules, last)) return decision;
  if (!last.non_finite_step && fails_the_same_way(attempts)) {
    decision.reason += " (the same failure twice at the same step)";
    return decision;
  }
  if (runs_out_of_memory_again(attempts)) {
    decision.reason += ", twice; a smaller batch, shorter sequences or gradient accumulation need less";
    return decision;
  }
  decision.without_progress = attempts_without_progress(attempts);
  if (decision.without_progress >= rules.max) {
    if (rules.max > 1)
      decision.reason += fmt::format(" ({} attempts without a new checkpoint)", decision.without_progress);
    return decision;
  }
  decision.kind = Decision::Kind::restart;
  decision.delay = delay_for(rules, decision.without_progress, jitter);
  return decision;
}

}  // namespace bitctl
