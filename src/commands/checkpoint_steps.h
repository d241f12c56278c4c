// What the subcommands of `bitctl checkpoints` that name a step have in common.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "checkpoint/choose.h"
#include "commands/commands.h"
#include "run/run_folder.h"

namespace bitctl {

// [RUN] and then so many words more; without RUN the newest run is meant.
struct StepWords {
  std::vector<std::string> words;
  size_t wanted = 1;  // without RUN

  std::string run() const { return words.size() > wanted ? words.front() : ""; }
  const std::string& word(size_t i) const { return words[words.size() - wanted + i]; }
};

// Adds them as positional arguments; `names`, such as "STEP DIR", are those after RUN.
void add_step_words(CLI::App& command, StepWords& words, const std::string& names, const std::string& help);

// The run, or the exit code of the complaint.
tl::expected<RunFolder, int> run_of(const std::string& name);

// The step of that name in the run: "best" by the run's checkpoints.keep_best, else the smallest loss.
tl::expected<StepFolder, int> step_of(const RunFolder& run, const std::string& name);

// The exit code that belongs to an error: wrong arguments, an answer that is no, or what bitctl could not do.
int exit_code_of(const Error& error);

void add_show_command(CLI::App& app, Action& action);
void add_diff_command(CLI::App& app, Action& action);
void add_pin_commands(CLI::App& app, Action& action);
void add_prune_steps_command(CLI::App& app, Action& action);
void add_export_command(CLI::App& app, Action& action);

}  // namespace bitctl
