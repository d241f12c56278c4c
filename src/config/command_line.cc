#include <fmt/format.h>

#include <algorithm>

#include "base/install_layout.h"
#include "config/run_config.h"

namespace bitctl {
namespace {

void replace_all(std::string& text, std::string_view from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
}

std::string quoted_for_shell(const std::string& word) {
  constexpr std::string_view kSafe =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
  if (!word.empty() && word.find_first_not_of(kSafe) == std::string::npos) return word;
  std::string text = word;
  replace_all(text, "'", "'\\''");
  return "'" + text + "'";
}

}  // namespace

Environment trainer_environment(const RunConfig& config) {
  Environment environment = config.run.env;
  environment.insert(config.run.env_from_file.begin(), config.run.env_from_file.end());
  return environment;
}

std::vector<std::string> trainer_argv(const RunConfig& config, const std::string& run_dir) {
  const RunConfig::Run& run = config.run;
  if (!run.shell.empty()) return {"sh", "-eu", "-c", run.shell};
  std::vector<std::string> argv = run.command;
  if (!run.script.empty()) {
    argv = {run.python, "-u", run.script};
    argv.insert(argv.end(), run.args.begin(), run.args.end());
  }
  for (std::string& word : argv) {
    replace_all(word, "{run_dir}", run_dir);
    replace_all(word, "{name}", config.name);
  }
  return argv;
}

std::string shell_quoted(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) line += (line.empty() ? "" : " ") + quoted_for_shell(word);
  return line;
}

std::string dry_run_text(const RunConfig& config) {
  const std::vector<std::string> argv = trainer_argv(config, "{run_dir}");
  const std::string program = argv[0].find('/') != std::string::npos && !argv[0].starts_with('/')
                                  ? config.workdir + "/" + argv[0]
                                  : argv[0];
  std::string comment = fmt::format(
      "command: cd {} && {}\nprogram: {}\nruns go to: {}\n", shell_quoted({config.workdir}),
      shell_quoted(argv), find_program(program).value_or("not found: " + program), config.output.dir);
  comment = mask_secrets(comment, config.secrets);
  comment.pop_back();
  replace_all(comment, "\n", "\n# ");
  return effective_yaml(config) + "\n# " + comment + "\n";
}

}  // namespace bitctl
