#include "run/describe.h"

#include <fmt/format.h>

#include "base/text.h"
#include "base/visible_text.h"

namespace bitctl {
namespace {

std::string describe_exit(const Json& row, const History& history) {
  const std::string signal = get_text(row, "signal");
  const uint64_t code = get_unsigned(row, "code").value_or(0);
  const std::string how =
      signal.empty() ? fmt::format("ended with exit code {}", code) : "killed by " + signal;
  const std::string where = history.step > 0 ? fmt::format(" at step {}", history.step) : "";
  return fmt::format("attempt {}: {}{}", history.attempt, how, where);
}

std::string describe(const Json& row, const History& history) {
  const std::string kind = get_text(row, "kind");
  const uint64_t step = get_unsigned(row, "step").value_or(0);
  const std::string reason = get_text(row, "reason");
  if (kind == "spawned")
    return fmt::format("attempt {}: started (pid {})", history.attempt, get_unsigned(row, "pid").value_or(0));
  if (kind == "resumed")
    return fmt::format("attempt {}: resumed at step {} from {}", history.attempt, step,
                       get_text(row, "source"));
  if (kind == "progress") return describe_progress(history);
  if (kind == "committed" && !get_flag(row, "unchanged"))
    return fmt::format("checkpoint of step {} on disk ({} in {})", step,
                       format_bytes(get_unsigned(row, "bytes").value_or(0)),
                       format_duration(std::chrono::milliseconds(get_unsigned(row, "ms").value_or(0))));
  if (kind == "checkpoint_interval")
    return fmt::format("checkpoints every {} from here on (auto)",
                       format_duration(from_seconds(get_finite(row, "seconds").value_or(0))));
  if (kind == "package_failed")
    return fmt::format("nothing is reported or saved any more (rank {}): {}",
                       get_unsigned(row, "rank").value_or(0), reason);
  if (kind == "persist_failed")
    return fmt::format("checkpoint of step {} {}: {}", step,
                       get_flag(row, "final") ? "is given up" : "is not on disk yet", reason);
  if (kind == "checkpoint_bad") {
    const std::string aside = get_text(row, "aside");
    return fmt::format("checkpoint of step {} is damaged and skipped: {}{}", step, reason,
                       aside.empty() ? "" : " (kept as " + aside + ")");
  }
  if (kind == "retained" && !reason.empty())
    return fmt::format("no room on the disk: {} older checkpoints deleted beyond what the config lets go",
                       row["deleted"].size());
  if (kind == "reader_in_the_way") return fmt::format("retention waits: {}", get_text(row, "reader"));
  if (kind == "arena_failed") return "no memory for snapshots: " + reason;
  if (kind == "writer_ready" && !reason.empty()) return "tensors are not checked by libtorch: " + reason;
  if (kind == "writer_died")
    return fmt::format("the checkpoint writer died (code {}); a new one was started",
                       get_unsigned(row, "code").value_or(0));
  if (kind == "spare" && get_text(row, "state") == "died") return "the spare interpreter has died: " + reason;
  if (kind == "pulse_damaged") return "the trainer's PULSE file: " + reason;
  if (kind == "error") return fmt::format("{} ({})", get_text(row, "exception"), get_text(row, "frame"));
  if (kind == "exited") return describe_exit(row, history);
  if (kind == "violation" || kind == "unkillable") return reason;
  if (kind == "rolled_back")
    return row.contains("step")
               ? fmt::format(
                     "the loss was not finite at step {}: rolled back to step {}, {} newer checkpoints kept "
                     "aside",
                     get_unsigned(row, "from").value_or(0), step, row["aside"].size())
               : fmt::format("the loss was not finite at step {}, and no checkpoint before it is finite",
                             get_unsigned(row, "from").value_or(0));
  if (kind == "suspected") return history.pulse.message;
  if (kind == "recovered") return "it gets on again";
  if (kind == "continued") return "it was stopped by a signal; continued (SIGCONT)";
  if (kind == "extended")
    return "no progress, but too little CPU for everybody, or it reads or writes; waiting once more";
  if (kind == "hang")
    return fmt::format(
        "attempt {}: hung: no progress for {} in phase {}; its stacks are in the log and the events",
        history.attempt, format_duration(from_seconds(get_finite(row, "silent").value_or(0))),
        get_text(row, "phase"));
  if (kind == "waiting") return history.pulse.message;
  if (kind == "stop_requested") return fmt::format("stop requested by {}", get_text(row, "by"));
  if (kind == "restart_requested") return "restart requested";
  if (kind == "model") return "finished model in " + get_text(row, "path");
  if (kind == "model_failed") return "the finished model is not on disk: " + reason;
  if (kind == "stopped" || kind == "finished" || kind == "failed") return history.pulse.message;
  return {};
}

}  // namespace

std::string describe_progress(const History& history) {
  std::string text = history.pulse.message;
  if (history.has_loss) text += fmt::format(" · loss {:.4f}", history.pulse.loss);
  if (const double rate = history.steps_per_second(); rate > 0) text += fmt::format(" · {:.3g} step/s", rate);
  if (const auto left = history.seconds_left()) text += " · ETA " + format_duration(from_seconds(*left));
  return text;
}

std::string describe_row(const Json& row, const History& history) {
  return visible_text(describe(row, history));
}

}  // namespace bitctl
