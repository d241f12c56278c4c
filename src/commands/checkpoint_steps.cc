#include "commands/checkpoint_steps.h"

#include "base/exit_code.h"
#include "base/install_layout.h"
#include "base/text.h"
#include "supervise/retention_policy.h"

namespace bitctl {
namespace {

// CLI11 cannot say that the first of several words may be left out.
class WordsFormatter : public CLI::Formatter {
 public:
  explicit WordsFormatter(std::string words) : words_("[RUN] " + std::move(words)) {}
  std::string make_option_name(const CLI::Option* option, bool is_positional) const override {
    return is_positional ? words_ : CLI::Formatter::make_option_name(option, false);
  }
  std::string make_option_usage(const CLI::Option*) const override { return words_; }

 private:
  std::string words_;
};

}  // namespace

void add_step_words(CLI::App& command, StepWords& words, const std::string& names, const std::string& help) {
  words.wanted = split(names, ' ').size();
  command.formatter(std::make_shared<WordsFormatter>(names));
  command
      .add_option("STEP", words.words,
                  "RUN: its id, a unique prefix, or its folder; the newest run where left out. " + help)
      ->required()
      ->expected(static_cast<int>(words.wanted), static_cast<int>(words.wanted) + 1)
      ->option_text(" ");
}

tl::expected<RunFolder, int> run_of(const std::string& name) {
  auto folder = find_run(name, absolute_path("."));
  if (!folder) return tl::unexpected(complain(folder.error(), kNoSuchRun));
  return std::move(*folder);
}

tl::expected<StepFolder, int> step_of(const RunFolder& run, const std::string& name) {
  BestMetric best{"loss"};
  if (name == "best") {
    const auto policy = read_retention_policy(run.config());
    if (!policy) return tl::unexpected(complain(policy.error(), kOwnFailure));
    best = policy->keep_best.value_or(best);
  }
  auto step = choose_step(run.checkpoints(), name, best);
  if (!step) return tl::unexpected(complain(step.error(), exit_code_of(step.error())));
  return std::move(*step);
}

int exit_code_of(const Error& error) {
  switch (error.kind) {
    case ErrorKind::invalid:
      return kUsage;
    case ErrorKind::not_found:
    case ErrorKind::damaged:
      return kFailed;
    default:
      return kOwnFailure;
  }
}

}  // namespace bitctl
