// What to do when an attempt has ended. Pure: the history of attempts in, one decision out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/memory_use.h"

namespace bitctl {

struct RestartRules {
  bool on_failure = true;
  int max = 3;  // attempts in a row without a higher complete snapshot
  Duration backoff = std::chrono::seconds(1);
  Duration backoff_max = std::chrono::seconds(60);
  std::vector<int> never_on = {2, 126, 127};  // exit codes that are the user's mistake
};

struct AttemptRecord {
  int attempt = 0;
  bool signalled = false;
  int code = 0;  // exit code, or signal number
  bool stop_asked = false;
  bool restart_asked = false;  // by the user: whatever way it then ended, the next one follows at once
  bool hang = false;
  bool reached_end = false;       // finish(), or the known total
  bool reports_progress = false;  // it is known how far it came
  bool connected = false;         // it spoke to us: without a report it is known that it made no step
  uint64_t last_step = 0;         // completed steps it reported
  // The newest complete snapshot, in memory or on disk, when it began and when it ended.
  std::optional<uint64_t> snapshot_before;
  std::optional<uint64_t> snapshot;
  MemoryUse memory;
  std::string error;       // "ValueError: …", the trainer's last exception; empty where unknown
  std::string error_key;   // hash of its traceback
  std::string error_type;  // "ModuleNotFoundError"
  // Rolled back (watchdog.nan) because the loss was not finite at this step; to where `snapshot` says.
  std::optional<uint64_t> non_finite_step;
  std::string violation;  // bitctl ended it for this reason (the script starts over, NaN): no restart
};

struct Decision {
  enum class Kind { done, stopped, restart, give_up };
  Kind kind = Kind::give_up;
  Duration delay{};          // restart
  int without_progress = 0;  // attempts in a row without a higher snapshot, this one included
  std::string reason;        // for people: "killed by SIGKILL at step 42"
  int exit_code = 0;         // done, stopped, give_up
};

// `attempts` is not empty, oldest first; the last one has just ended. `jitter` in [0, 1) spreads the
// back-off.
Decision decide(const RestartRules& rules, const std::vector<AttemptRecord>& attempts, double jitter);

// "killed by SIGKILL at step 42", "exit code 1 at step 7: ValueError: …".
std::string describe_end(const AttemptRecord& attempt);

}  // namespace bitctl
