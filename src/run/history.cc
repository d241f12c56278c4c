#include "run/history.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "run/events.h"

namespace bitctl {
namespace {

constexpr uint64_t kLastSecond = 253402300799;  // of the year 9999

double time_of(const Json& row) {
  return std::clamp(get_finite(row, "t").value_or(0), 0.0, static_cast<double>(kLastSecond));
}

}  // namespace

void History::set_message(std::string message) {
  pulse.message = std::move(message);
  for (const std::string* more : {&unheard_, &warning_})
    if (!more->empty()) pulse.message += " · " + *more;
}

void History::apply_progress(const Json& row) {
  const double t = time_of(row);
  step = get_unsigned(row, "step").value_or(step);
  total_steps = get_unsigned(row, "total_steps").value_or(total_steps);
  lr = get_finite(row, "lr").value_or(lr);
  if (!reported_) {
    first_step_ = step;
    first_time_ = t;
    reported_ = true;
  }
  last_time_ = t;
  state = "running";
  pulse.status = TrainingState::running;
  // A trainer that counts steps alone makes one epoch of them.
  if (row.contains("epoch") || row.contains("total_epochs")) {
    pulse.epoch = get_finite(row, "epoch").value_or(pulse.epoch);
    pulse.total_epochs = get_finite(row, "total_epochs").value_or(pulse.total_epochs);
  } else if (total_steps > 0) {
    pulse.epoch = static_cast<double>(step) / static_cast<double>(total_steps);
    pulse.total_epochs = 1;
  }
  if (const auto loss = row.find("loss"); loss != row.end() && loss->is_object()) {
    pulse.loss = get_finite(*loss, "last").value_or(pulse.loss);
    has_loss = true;
  }
  std::string message = get_text(row, "message", "");
  if (message.empty()) {
    message = total_steps > 0 ? fmt::format("step {}/{}", step, total_steps) : fmt::format("step {}", step);
  }
  if (const std::string bad = get_text(row, "non_finite_loss", ""); !bad.empty())
    non_finite_ =
        fmt::format("loss is {} at step {}", bad, get_unsigned(row, "non_finite_step").value_or(step));
  else if (row.contains("loss"))
    non_finite_.clear();
  if (!non_finite_.empty()) message = non_finite_;
  set_message(std::move(message));
}

void History::apply(const Json& row) {
  const std::string kind = get_text(row, "kind", "");
  const double t = time_of(row);
  // A trainer's own PULSE brings its own time.
  const auto stamp = [&] {
    const auto own = get_unsigned(row, "stamp");
    pulse.timestamp = own ? static_cast<int64_t>(std::min(*own, kLastSecond)) : static_cast<int64_t>(t);
  };
  if (started == 0) started = t;
  attempt = static_cast<int>(get_unsigned(row, "attempt").value_or(static_cast<uint64_t>(attempt)));

  if (kind == "progress") {
    apply_progress(row);
    stamp();
  } else if (kind == "restamped") {
    stamp();
  } else if (kind == "supervising") {
    supervisor = process_id_from(row);
    socket = get_text(row, "socket", "");
    isolation = get_text(row, "isolation", "");
    spare.clear();
    state = "waiting";
    pulse.status = TrainingState::running;
    set_message(attempt == 0 ? "Starting…" : "Resuming…");
    stamp();
  } else if (kind == "spawned") {
    state = "running";
    resumed_from.reset();
    reported_ = false;
    non_finite_.clear();
    unheard_.clear();
    pulse.status = TrainingState::running;
    set_message(attempt <= 1 ? "Starting…" : fmt::format("attempt {}: starting…", attempt));
    stamp();
  } else if (kind == "resumed") {
    step = get_unsigned(row, "step").value_or(step);
    resumed_from = step;
    set_message(fmt::format("attempt {}: resumed at step {} from {}", attempt, step,
                            get_text(row, "source", "disk")));
    stamp();
  } else if (kind == "rolled_back") {
    checkpoint_step = get_unsigned(row, "step");
  } else if (kind == "suspected") {
    // Not stamped: a file that stops moving is what says so to everybody else.
    set_message(fmt::format("no progress for {} (phase {}); looking whether it hangs",
                            format_duration(from_seconds(get_finite(row, "silent").value_or(0))),
                            get_text(row, "phase", "?")));
  } else if (kind == "recovered") {
    set_message(total_steps > 0 ? fmt::format("step {}/{}", step, total_steps)
                                : fmt::format("step {}", step));
    stamp();
  } else if (kind == "committed") {
    checkpoint_step = get_unsigned(row, "step").value_or(0);
    checkpoint_time = t;
    warning_.clear();
  } else if (kind == "checkpoint_interval") {
    checkpoint_interval = get_finite(row, "seconds").value_or(0);
  } else if (kind == "package_failed") {
    unheard_ = "nothing is reported or saved any more: " + get_text(row, "reason", "unknown");
    set_message(fmt::format("step {}", step));
    stamp();
  } else if (kind == "persist_failed") {
    warning_ = fmt::format("checkpoint of step {} {}: {}", get_unsigned(row, "step").value_or(0),
                           get_flag(row, "final") ? "is given up" : "is not on disk yet",
                           get_text(row, "reason", "unknown"));
  } else if (kind == "spare") {
    const std::string reason = get_text(row, "reason", "");
    spare = get_text(row, "state", "") + (reason.empty() ? "" : ": " + reason);
  } else if (kind == "waiting") {
    state = "waiting";
    pulse.status = TrainingState::running;
    set_message(fmt::format("restarting {}/{} in {}: {}", get_unsigned(row, "next").value_or(0),
                            get_unsigned(row, "budget").value_or(0),
                            format_duration(from_seconds(get_finite(row, "delay").value_or(0))),
                            get_text(row, "reason", "")));
    stamp();
  } else if (kind == "stopped") {
    state = "stopped";
    pulse.status = TrainingState::idle;
    const bool resumable = get_flag(row, "resumable");
    const std::string reason = get_text(row, "reason", "");
    set_message(fmt::format("stopped at step {} ({}){}", get_unsigned(row, "step").value_or(step),
                            resumable ? "resumable" : "no checkpoint", reason.empty() ? "" : ": " + reason));
    stamp();
  } else if (kind == "finished") {
    state = "done";
    pulse.status = TrainingState::done;
    if (pulse.total_epochs > 0) pulse.epoch = pulse.total_epochs;
    const std::string took = format_duration(from_seconds(get_finite(row, "seconds").value_or(0)));
    set_message(!non_finite_.empty() ? fmt::format("finished in {}; {}", took, non_finite_)
                : has_loss           ? fmt::format("finished in {}, final loss {:.4f}", took, pulse.loss)
                                     : "finished in " + took);
    stamp();
  } else if (kind == "failed") {
    state = "failed";
    pulse.status = TrainingState::error;
    warning_.clear();
    set_message(get_text(row, "reason", "failed"));
    stamp();
  }
}

double History::steps_per_second() const {
  if (!reported_ || step <= first_step_ || last_time_ <= first_time_) return 0;
  return static_cast<double>(step - first_step_) / (last_time_ - first_time_);
}

std::optional<double> History::seconds_left() const {
  const double rate = steps_per_second();
  if (rate <= 0 || total_steps <= step) return std::nullopt;
  return static_cast<double>(total_steps - step) / rate;
}

Result<History> read_history(const std::string& events_path) {
  History history;
  auto end = read_events(events_path, 0, [&](const Json& row) { history.apply(row); });
  if (!end) return forward(std::move(end));
  return history;
}

}  // namespace bitctl
