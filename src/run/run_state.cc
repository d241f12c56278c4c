#include "run/run_state.h"

#include <fmt/format.h>

#include "base/lock.h"
#include "base/visible_text.h"

namespace bitctl {
namespace {

// Asks by taking the lock for a moment, shared: /proc/locks does not tell of a lock whose first holder is
// dead.
bool somebody_holds(const RunFolder& folder) {
  const auto lock = FileLock::acquire(folder.pulse_lock(), FileLock::Mode::shared, Duration::zero());
  return !lock && lock.error().kind == ErrorKind::locked;
}

bool is_closed(const History& history) {
  return history.state == "done" || history.state == "stopped" || history.state == "failed";
}

}  // namespace

std::string state_of_run(const RunFolder& folder, const History& history) {
  if (is_alive(history.supervisor)) return history.state;
  if (somebody_holds(folder)) return "saving";
  return is_closed(history) ? history.state : "dead";
}

bool is_in_progress(const RunFolder& folder, const History& history) {
  return is_alive(history.supervisor) || somebody_holds(folder);
}

std::string describe_the_end(const RunFolder& folder, const History& history) {
  const std::string state = state_of_run(folder, history);
  const std::string resume = fmt::format("`bitctl resume {}` goes on", folder.id());
  if (state == "saving")
    return fmt::format("bitctl itself was killed, and its writer still saves; then {}", resume);
  if (state == "dead")
    return fmt::format("bitctl itself was killed at step {}, or the machine went down; {}", history.step,
                       resume);
  const std::string message = visible_text(history.pulse.message);
  if (state == "done") return fmt::format("{}; `bitctl chat {}` talks to it", message, folder.id());
  if (state == "failed")
    return fmt::format("{}; `bitctl why {}` explains it, {}", message, folder.id(), resume);
  return fmt::format("{}; {}", message, resume);
}

}  // namespace bitctl
