#include "run/explain_run.h"

#include "base/install_layout.h"
#include "base/process_id.h"
#include "base/read_file.h"
#include "run/events.h"
#include "run/run_state.h"

namespace bitctl {
namespace {

constexpr size_t kMaxRunJsonBytes = 4 << 20;
constexpr size_t kTailBytes = 64 << 10;

Json facts_of(const RunFolder& folder) {
  const auto bytes = read_small_file(folder.run_json(), kMaxRunJsonBytes);
  if (!bytes) return Json::object();
  const auto json = parse_strict_json(*bytes);
  return json && json->is_object() ? *json : Json::object();
}

std::string program_of(const Json& facts) {
  const auto argv = facts.find("argv");
  if (argv == facts.end() || !argv->is_array() || argv->empty() || !argv->front().is_string())
    return "python3";
  const auto program = argv->front().get<std::string>();
  return find_program(program).value_or(program);
}

}  // namespace

Result<Explanation> explain_run(const RunFolder& folder) {
  Story story;
  History history;
  const auto end = read_events(folder.events(), 0, [&](const Json& row) {
    story.apply(row);
    history.apply(row);
  });
  if (!end) return tl::unexpected(end.error());
  const Json facts = facts_of(folder);
  RunContext around;
  around.id = folder.id();
  around.state = state_of_run(folder, history);
  around.rebooted = history.supervisor.boot_id != boot_id();
  around.program = program_of(facts);
  around.workdir = get_text(facts, "cwd");
  if (const AttemptStory* failure = story.last_failure()) {
    around.log = folder.log_of_attempt(failure->attempt);
    around.log_tail = read_tail(around.log, kTailBytes).value_or("");
  }
  return explain(story, history, around);
}

}  // namespace bitctl
