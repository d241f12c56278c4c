#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "base/exit_code.h"
#include "base/install_layout.h"
#include "base/visible_text.h"
#include "commands/commands.h"
#include "run/explain_run.h"

namespace bitctl {
namespace {

struct WhyOptions {
  std::string run;
  bool json = false;
};

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json or_null(uint64_t bytes) { return bytes == 0 ? Json(nullptr) : Json(bytes); }

Json or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

Json object_of(const RunFolder& folder, const Explanation& known) {
  const AttemptStory failure = known.failure.value_or(AttemptStory{});
  return {{"id", folder.id()},
          {"path", folder.path()},
          {"state", known.state},
          {"what", known.what},
          {"attempt", known.failure ? Json(failure.attempt) : Json(nullptr)},
          {"step", or_null(failure.step)},
          {"signal", or_null(failure.signal)},
          {"code", or_null(failure.code)},
          {"exception", or_null(known.exception)},
          {"frame", or_null(known.frame)},
          {"memory_peak", or_null(failure.memory.peak)},
          {"memory_limit", or_null(failure.memory.limit)},
          {"did", known.did},
          {"next", known.next},
          {"log", or_null(known.log)}};
}

void print_line(const char* label, const std::string& text) {
  if (!text.empty()) fmt::print("{:<8}{}\n", label, visible_text(text));
}

void print_lines(const char* label, const std::vector<std::string>& texts) {
  for (const std::string& text : texts) print_line(std::exchange(label, ""), text);
}

int why(const WhyOptions& options) {
  const auto folder = find_run(options.run, absolute_path("."));
  if (!folder) return complain(folder.error(), kNoSuchRun);
  const auto known = explain_run(*folder);
  if (!known) return complain(known.error(), kFailed);
  if (options.json) {
    fmt::print("{}\n", dump_line(object_of(*folder, *known)));
    return kOk;
  }
  print_line("run", fmt::format("{} ({})", folder->id(), known->state));
  print_line("what", known->what);
  print_line("where", known->frame);
  print_line("memory", known->memory);
  print_lines("bitctl", known->did);
  print_lines("try", known->next);
  print_line("log", known->log);
  return kOk;
}

}  // namespace

void add_why_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<WhyOptions>();
  CLI::App* command =
      app.add_subcommand("why", "Why a run ended or failed on its way, what bitctl did, and what to try");
  add_run_argument(*command, options->run);
  command->add_flag("--json", options->json, "The same as one JSON object");
  command->callback([options, &action] { action = [options] { return after_output(why(*options)); }; });
}

}  // namespace bitctl
