#include "writer/sentinel.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <thread>

#include "base/clock.h"
#include "launch/isolation.h"
#include "launch/processes.h"
#include "pulse/write.h"
#include "run/events.h"
#include "run/history.h"

namespace bitctl {

void Sentinel::end_tree() {
  const auto description = parse_strict_json(isolation_);
  if (!description) return;
  const auto isolation = Isolation::rebuild(*description);
  const auto tree = isolation->everything();
  tree->set_leader(leader_);
  // Before anything else, and above all before a look at a disk: the tree has a second to be gone.
  for (int pass = 0; pass < 500 && !tree->is_empty(); ++pass) {
    tree->kill();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  if (!tree->is_empty())
    append(event_row("unkillable", 0, system_clock().wall()), unkillable_tree(tree->pids()).fields);
  const auto history = read_history(folder_.events());
  run_had_ended_ =
      history && (history->state == "done" || history->state == "stopped" || history->state == "failed");
  if (!run_had_ended_)
    append(event_row("failed", 0, system_clock().wall()),
           {{"reason", fmt::format("bitctl itself was killed at step {}", history ? history->step : 0)}});
}

void Sentinel::record(const Json& message) {
  const std::string type = get_text(message, "type");
  if (type != "committed" && type != "failed" && type != "finished") return;
  Json fields = message;
  fields.erase("type");
  append(event_row(type == "failed"     ? "persist_failed"
                   : type == "finished" ? "model"
                                        : type,
                   0, system_clock().wall()),
         fields);
}

void Sentinel::tell_the_end() {
  if (run_had_ended_) return;
  const auto history = read_history(folder_.events());
  if (!history) return;
  const std::string from = history->checkpoint_step ? fmt::format("resumable from step {}: bitctl resume {}",
                                                                  *history->checkpoint_step, folder_.id())
                                                    : "no checkpoint had been taken";
  append(event_row("failed", 0, system_clock().wall()),
         {{"reason", fmt::format("bitctl itself was killed at step {}; {}", history->step, from)}});
}

void Sentinel::append(Json row, const Json& fields) {
  auto log = EventLog::open(folder_.events());
  const auto before = read_history(folder_.events());
  row["attempt"] = before ? before->attempt : 0;
  row.update(fields);
  if (log) static_cast<void>(log->append(row));
  if (const auto history = read_history(folder_.events()))
    if (const auto status = write_pulse(folder_.pulse(), history->pulse); !status)
      spdlog::error("writer: {}", status.error().message);
}

}  // namespace bitctl
