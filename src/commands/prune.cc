#include "run/prune.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <memory>
#include <set>

#include "base/exit_code.h"
#include "base/install_layout.h"
#include "base/replace_file.h"
#include "base/text.h"
#include "commands/commands.h"
#include "run/history.h"
#include "run/run_state.h"

namespace bitctl {
namespace {

constexpr Duration kOlderThan = std::chrono::hours(24 * 30);

struct PruneOptions {
  std::vector<std::string> runs;
  std::optional<Duration> older_than;
  std::optional<size_t> keep;
  bool all = false;
  bool dry_run = false;
  bool yes = false;
};

struct Candidate {
  RunFolder folder;
  Duration age;
  uint64_t bytes;
};

bool is_over(const RunFolder& folder) {
  const auto history = read_history(folder.events());
  return !is_in_progress(folder, history ? *history : History{});
}

Candidate candidate(const RunFolder& folder) {
  return {folder, age_of_run(folder, system_clock().wall()), disk_usage(folder.path())};
}

Result<std::vector<Candidate>> named(const PruneOptions& options) {
  std::vector<Candidate> candidates;
  std::set<std::string> seen;
  for (const std::string& name : options.runs) {
    auto folder = find_run(name, absolute_path("."));
    if (!folder) return forward(std::move(folder));
    if (seen.insert(folder->path()).second) candidates.push_back(candidate(*folder));
  }
  return candidates;
}

std::vector<Candidate> by_rule(const std::vector<RunFolder>& runs, const PruneOptions& options) {
  PruneRule rule{options.older_than, options.keep};
  if (!rule.older_than && !rule.keep) rule.older_than = kOlderThan;
  std::vector<Duration> ages;
  for (const RunFolder& run : runs) ages.push_back(age_of_run(run, system_clock().wall()));
  std::vector<Candidate> candidates;
  for (const size_t i : pruned_by(rule, ages))
    if (is_over(runs[i])) candidates.push_back(candidate(runs[i]));
  return candidates;
}

// Where removals may have been interrupted.
std::set<std::string> folders_of_runs(const std::vector<RunFolder>& runs) {
  std::set<std::string> folders = {absolute_path("./runs")};
  for (const RunFolder& run : runs) folders.insert(folder_of(run.path()));
  return folders;
}

uint64_t show(const std::vector<Candidate>& candidates) {
  uint64_t bytes = 0;
  for (const Candidate& c : candidates) {
    fmt::print("{:<40} {:>9} old {:>11}\n", c.folder.id(), format_duration(c.age), format_bytes(c.bytes));
    bytes += c.bytes;
  }
  return bytes;
}

bool user_agrees(size_t runs, uint64_t bytes) {
  fmt::print("remove {} with all {} checkpoints and models ({})? [y/N] ",
             runs == 1 ? "this run" : fmt::format("these {} runs", runs), runs == 1 ? "its" : "their",
             format_bytes(bytes));
  std::fflush(stdout);
  std::string answer;
  return std::getline(std::cin, answer) && (answer == "y" || answer == "Y" || answer == "yes");
}

int prune(const PruneOptions& options) {
  const auto listed = list_runs(absolute_path("."), options.all);
  auto candidates =
      options.runs.empty() ? Result<std::vector<Candidate>>(by_rule(listed, options)) : named(options);
  if (!candidates) return complain(candidates.error(), kNoSuchRun);
  std::vector<RunFolder> known = listed;
  for (const Candidate& c : *candidates) known.push_back(c.folder);

  uint64_t freed = 0;
  if (!options.dry_run)
    for (const std::string& runs : folders_of_runs(known)) freed += clear_leftovers(runs);
  const uint64_t bytes = show(*candidates);
  if (options.dry_run) {
    fmt::print("{} would be freed\n", format_bytes(bytes));
    return kOk;
  }
  if (!candidates->empty() && !options.yes) {
    if (!::isatty(STDIN_FILENO))
      return complain({ErrorKind::invalid, "nobody can be asked here: give --yes, or --dry-run to look"},
                      kUsage);
    if (!user_agrees(candidates->size(), bytes)) {
      fmt::print("nothing was removed\n");
      return kFailed;
    }
  }
  int code = kOk;
  for (const Candidate& c : *candidates) {
    if (auto status = remove_run(c.folder); !status)
      code = complain(status.error(), kFailed);
    else
      freed += c.bytes;
  }
  fmt::print("{} freed\n", format_bytes(freed));
  return code;
}

}  // namespace

void add_prune_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<PruneOptions>();
  CLI::App* command =
      app.add_subcommand("prune", "Remove runs that are over, with their checkpoints and models");
  CLI::Option* runs = command->add_option("RUN", options->runs, "These, instead of those that are old");
  add_duration_option(*command, "--older-than", options->older_than,
                      "Runs that ended longer ago (30d where neither this nor --keep is given)")
      ->excludes(runs);
  command
      ->add_option_function<size_t>(
          "--keep", [options](const size_t& count) { options->keep = count; }, "All but the newest N")
      ->check(CLI::NonNegativeNumber)
      ->excludes(runs);
  command->add_flag("--all", options->all, "Of every folder, not of this one alone")->excludes(runs);
  command->add_flag("--dry-run", options->dry_run, "Only say what would go");
  command->add_flag("-y,--yes", options->yes, "Do not ask");
  command->callback([options, &action] { action = [options] { return after_output(prune(*options)); }; });
}

}  // namespace bitctl
