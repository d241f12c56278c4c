#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>

#include "base/exit_code.h"
#include "base/lock.h"
#include "base/text.h"
#include "checkpoint/folders.h"
#include "checkpoint/pins.h"
#include "commands/checkpoint_steps.h"
#include "run/history.h"
#include "run/run_state.h"
#include "supervise/retention_policy.h"

namespace bitctl {
namespace {

constexpr Duration kLockLimit = std::chrono::seconds(10);

struct PinOptions {
  StepWords words;
  bool json = false;
};

int tell_pin(uint64_t step, bool pinned, bool json) {
  if (json)
    std::printf("%s\n", dump_line({{"step", step}, {"pinned", pinned}}).c_str());
  else
    fmt::print("step {} is {}\n", step, pinned ? "pinned: no retention deletes it" : "not pinned any more");
  return kOk;
}

int pin(const PinOptions& options) {
  const auto run = run_of(options.words.run());
  if (!run) return run.error();
  // Retention, which holds it exclusively, cannot delete the step between our look and our pin.
  const auto lock = FileLock::acquire(run->checkpoints_lock(), FileLock::Mode::shared, kLockLimit);
  if (!lock && lock.error().kind != ErrorKind::not_found) return complain(lock.error(), kOwnFailure);
  const auto step = step_of(*run, options.words.word(0));
  if (!step) return step.error();
  if (const auto status = pin_step(run->checkpoints(), step->step); !status)
    return complain(status.error(), kOwnFailure);
  return tell_pin(step->step, true, options.json);
}

// Of a step that is gone as well: what is pinned once and deleted by hand must not stay so for ever.
int unpin(const PinOptions& options) {
  const auto run = run_of(options.words.run());
  if (!run) return run.error();
  const std::string& name = options.words.word(0);
  const auto number = step_number(name);
  const bool gone = number && is_pinned(run->checkpoints(), *number);
  const auto step = gone ? StepFolder{*number, ""} : step_of(*run, name);
  if (!step) return step.error();
  if (const auto status = unpin_step(run->checkpoints(), step->step); !status)
    return complain(status.error(), kOwnFailure);
  return tell_pin(step->step, false, options.json);
}

struct PruneStepsOptions {
  std::string run;
  std::optional<int> keep_last;
  bool dry_run = false;
  bool json = false;
};

std::set<uint64_t> in_use_by(const RunFolder& run) {
  const auto history = read_history(run.events());
  if (!history || !history->resumed_from || !is_in_progress(run, *history)) return {};
  return {*history->resumed_from};
}

int tell_pruned(const std::vector<uint64_t>& steps, uint64_t bytes, const PruneStepsOptions& options) {
  if (options.json) {
    const Json row = {{"deleted", steps}, {"bytes", bytes}, {"dry_run", options.dry_run}};
    std::printf("%s\n", dump_line(row).c_str());
  } else if (steps.empty()) {
    fmt::print("nothing to delete\n");
  } else {
    fmt::print("{} {}: {}\n", options.dry_run ? "would delete" : "deleted",
               steps.size() == 1 ? "step" : "steps", fmt::join(steps, ", "));
    fmt::print("{} {}\n", format_bytes(bytes), options.dry_run ? "would be freed" : "freed");
  }
  return kOk;
}

uint64_t bytes_of(const RunFolder& run, const std::vector<uint64_t>& steps) {
  std::vector<std::string> folders;
  for (const uint64_t step : steps) folders.push_back(run.checkpoints() + "/" + step_folder_name(step));
  return bytes_freed_by(folders);
}

int prune(const PruneStepsOptions& options) {
  const auto run = run_of(options.run);
  if (!run) return run.error();
  auto read = read_retention_policy(run->config());
  if (!read) return complain(read.error(), kOwnFailure);
  RetentionPolicy policy = *read;
  if (options.keep_last) policy.keep_last = *options.keep_last;
  RetentionScope scope{.run = run->id(), .in_use = in_use_by(*run)};

  // Reading one to its last byte takes its time: before the lock, and only where something is to go.
  auto entries = retention_entries(run->checkpoints(), policy, scope);
  for (RetentionEntry& entry : entries) entry.verified = entry.valid;
  if (steps_to_delete(entries, policy).empty()) return tell_pruned({}, 0, options);
  const auto good = find_verified(run->checkpoints(), scope);
  if (!good)
    return complain({ErrorKind::damaged, run->id() + ": no checkpoint verifies, so nothing is deleted; "
                                                     "`bitctl checkpoints verify --deep` says why"},
                    kFailed);
  scope.verified.insert(*good);
  if (options.dry_run) {
    const auto steps = steps_to_delete(retention_entries(run->checkpoints(), policy, scope), policy);
    return tell_pruned(steps, bytes_of(*run, steps), options);
  }
  const auto lock = FileLock::acquire(run->checkpoints_lock(), FileLock::Mode::exclusive, kLockLimit);
  if (!lock) return complain(lock.error(), kOwnFailure);
  const Retained done = retain(run->checkpoints(), policy, scope);
  int code = tell_pruned(done.deleted, done.bytes, options);
  for (const Error& error : done.failed) code = complain(error, kOwnFailure);
  return code;
}

}  // namespace

void add_pin_commands(CLI::App& app, Action& action) {
  for (const auto& [name, help, run] :
       {std::tuple("pin", "Keep a step, whatever retention and prune would do", &pin),
        std::tuple("unpin", "Let a step go again", &unpin)}) {
    auto options = std::make_shared<PinOptions>();
    CLI::App* command = app.add_subcommand(name, help);
    add_step_words(*command, options->words, "STEP", "STEP: a number, newest or best");
    command->add_flag("--json", options->json, "One JSON object a line");
    command->callback(
        [options, &action, run = run] { action = [options, run] { return after_output(run(*options)); }; });
  }
}

void add_prune_steps_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<PruneStepsOptions>();
  CLI::App* command = app.add_subcommand(
      "prune",
      "Delete what the run's config does not keep: never the last good step, a pinned one, or "
      "another run's");
  add_run_argument(*command, options->run);
  command
      ->add_option_function<int>(
          "--keep-last", [options](const int& count) { options->keep_last = count; },
          "The newest N instead of checkpoints.keep_last")
      ->check(CLI::Range(1, 1'000'000))
      ->type_name("N");
  command->add_flag("--dry-run", options->dry_run, "Only say what would go");
  command->add_flag("--json", options->json, "One JSON object a line");
  command->callback([options, &action] { action = [options] { return after_output(prune(*options)); }; });
}

}  // namespace bitctl
