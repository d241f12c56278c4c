// What the rows of events.jsonl add up to: PULSE, and what the panel shows beside it. The supervisor writes
// PULSE from this very fold, so that the file and the history can never disagree.
//
// schemas/event.v1.schema.json has every kind of row; these count here:
//   supervising {pid, start_ticks, boot_id, socket, isolation}   a supervisor holds the run
//   spawned {pid}                        attempt n has been started
//   resumed {step, source}               it was given a checkpoint: "memory", "disk"
//   progress {step, total_steps?, epoch?, total_epochs?, loss? {last, min, mean, max, n}, non_finite_loss?,
//            non_finite_step?, lr?, message?, stamp?}    the last two from a PULSE of the trainer's own
//   restamped {}                         no news, and the verdict is healthy
//   suspected {phase, silent, limit}      no sign of progress for `silent` seconds; `stacks` rows follow
//   recovered {phase}                    it got on after all
//   committed {step, bytes, ms}          a checkpoint is durable
//   persist_failed {step, reason, final?}   it could not be written; unless final, it is tried again
//   package_failed {rank, reason}        from here on the trainer reports and saves nothing
//   checkpoint_interval {seconds}        checkpoints.every: auto has settled on it
//   spare {state, reason?}               warm standby: starting, ready, used, died, or off and why
//   waiting {reason, delay, next, budget}   back-off before the next attempt
//   stopped {step, resumable, reason?}   ended on request
//   finished {seconds}                   ended at its end
//   failed {reason}                      given up
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/process_id.h"
#include "base/result.h"
#include "base/strict_json.h"
#include "pulse/status.h"

namespace bitctl {

struct History {
  PulseStatus pulse;
  int attempt = 0;
  std::string state = "new";  // new, running, waiting, stopped, done, failed
  uint64_t step = 0;
  uint64_t total_steps = 0;
  double lr = 0;
  bool has_loss = false;                    // one was reported; pulse.loss is 0 until then
  double started = 0;                       // Unix seconds of the first row
  std::optional<uint64_t> checkpoint_step;  // newest durable one
  std::optional<uint64_t> resumed_from;     // by this attempt
  double checkpoint_time = 0;               // Unix seconds
  double checkpoint_interval = 0;           // seconds, where it was worked out; else 0
  std::string isolation;
  std::string spare;  // for people: "ready", "off: restart.warm is off"; empty where none was thought of yet
  std::string socket;
  ProcessId supervisor;

  void apply(const Json& row);

  // Steps a second of this attempt; 0 where fewer than two reports came in.
  double steps_per_second() const;
  // Seconds to the end at that rate; nothing where the end or the rate is not known.
  std::optional<double> seconds_left() const;

 private:
  void apply_progress(const Json& row);
  void set_message(std::string message);

  std::string warning_;     // stays behind the message until its cause is gone
  std::string unheard_;     // the same; why this attempt reports and saves nothing
  std::string non_finite_;  // in the message's place, until a finite loss is reported
  uint64_t first_step_ = 0;
  double first_time_ = 0;
  double last_time_ = 0;
  bool reported_ = false;
};

// Folds the whole file. Error::not_found where there is none.
Result<History> read_history(const std::string& events_path);

}  // namespace bitctl
