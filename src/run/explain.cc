#include "run/explain.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/clock.h"
#include "base/text.h"
#include "run/advice.h"
#include "run/traceback.h"

namespace bitctl {
namespace {

std::string how_it_ended(const AttemptStory& a) {
  if (!a.spawn_failure.empty()) return "could not be started: " + a.spawn_failure;
  if (!a.violation.empty()) return "was ended by bitctl: " + a.violation;
  if (a.hang)
    return fmt::format("hung: nothing was heard of it for {}{}",
                       format_duration(from_seconds(a.hang->silent)),
                       a.hang->phase.empty() ? "" : fmt::format(" (phase {})", a.hang->phase));
  if (a.non_finite_step) return fmt::format("had a loss that was not finite at step {}", *a.non_finite_step);
  const std::string where = a.step ? fmt::format(" at step {}", *a.step) : "";
  if (a.ran_out_of_memory()) return fmt::format("ran out of memory{} and was killed by the kernel", where);
  if (!a.signal.empty()) return fmt::format("was killed by {}{}", a.signal, where);
  return fmt::format("ended with exit code {}{}", a.code.value_or(0), where);
}

// What the reason of giving up says beyond the end that it begins with: "the same failure twice at the same
// step".
std::string beyond_the_end(const std::string& reason, const AttemptStory& a) {
  size_t from = 0;
  const std::string step = a.step ? fmt::format("at step {}", *a.step) : "";
  for (const std::string& known : {a.signal, step, a.exception})
    if (const size_t at = reason.find(known); !known.empty() && at != std::string::npos)
      from = std::max(from, at + known.size());
  const size_t begin = reason.find('(', from);
  return begin == std::string::npos || !reason.ends_with(')')
             ? ""
             : reason.substr(begin + 1, reason.size() - begin - 2);
}

std::vector<std::string> what_bitctl_did(const Story& story, const AttemptStory& failure) {
  std::vector<std::string> did;
  if (!story.bad_checkpoints.empty())
    did.push_back(fmt::format("set the damaged checkpoint of step {} aside", story.bad_checkpoints.back()));
  if (story.restarts > 0) {
    std::string text = fmt::format("restarted it {}",
                                   story.restarts == 1 ? "once" : fmt::format("{} times", story.restarts));
    if (story.resumed_step)
      text += fmt::format(", the last time from step {} ({})", *story.resumed_step, story.resumed_from);
    did.push_back(text);
  }
  if (story.rolled_back) did.push_back(fmt::format("rolled back to step {}", *story.rolled_back));
  if (!story.failure.empty() && story.exit_code) {
    const std::string why = beyond_the_end(story.failure, failure);
    did.push_back(
        fmt::format("gave up with exit code {}{}{}", *story.exit_code, why.empty() ? "" : ": ", why));
  }
  return did;
}

// Short of an attempt that went wrong.
std::string what_else(const Story& story, const History& history, const RunContext& around) {
  const bool asked = !story.attempts.empty() && story.attempts.back().asked_to_leave;
  if (around.state == "stopped" && !asked && !story.attempts.empty())
    return fmt::format("the script ended by itself, short of its end: {}", history.pulse.message);
  return "nothing failed; " +
         (history.pulse.message.empty() ? "it has not begun yet" : history.pulse.message);
}

// The supervisor is gone, and it was not its own will.
std::string end_of_bitctl(const Story& story, const History& history, const RunContext& around) {
  if (around.state == "saving") return "bitctl itself was killed; its writer still saves the newest snapshot";
  if (around.state == "dead")
    return fmt::format("{} at step {}, and {} with it",
                       around.rebooted ? "the machine went down" : "bitctl was killed", history.step,
                       around.rebooted ? "bitctl" : "its writer");
  return around.state == "failed" && !story.exit_code ? story.failure : "";
}

}  // namespace

Explanation explain(const Story& story, const History& history, const RunContext& around) {
  Explanation out{.state = around.state};
  if (std::string end = end_of_bitctl(story, history, around); !end.empty()) {
    out.what = std::move(end);
    out.next = {resume_advice(story, around)};
    return out;
  }
  const AttemptStory* last = story.last_failure();
  if (!last) {
    out.what = what_else(story, history, around);
    if (around.state == "stopped") out.next = {resume_advice(story, around)};
    return out;
  }
  const AttemptStory& failure = out.failure.emplace(*last);
  const Traceback told = failure.exception.empty()
                             ? last_traceback(around.log_tail)
                             : Traceback{failure.exception, failure.exception_type, failure.frame};
  out.exception = told.exception;
  out.frame = told.frame;
  out.what = fmt::format("attempt {} {}", failure.attempt, how_it_ended(failure));
  if (!told.exception.empty()) out.what += ": " + told.exception;
  out.memory = describe(failure.memory);
  out.log = around.log;
  out.did = what_bitctl_did(story, failure);
  if (around.state != "failed") {
    out.did.push_back(fmt::format("now it is {}: {}", around.state, history.pulse.message));
    if (around.state == "stopped") out.next = {resume_advice(story, around)};
    return out;
  }
  out.next = advice(story, failure, told, around);
  out.next.push_back(resume_advice(story, around));
  return out;
}

}  // namespace bitctl
