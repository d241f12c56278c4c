#include <gtest/gtest.h>
#include <stdio.h>

#include "base/install_layout.h"
#include "config/run_config.h"
#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

using Words = std::vector<std::string>;

std::string output_of(const std::string& shell_line) {
  std::string text;
  FILE* pipe = ::popen(shell_line.c_str(), "r");
  for (int c; (c = ::fgetc(pipe)) != EOF;) text += static_cast<char>(c);
  ::pclose(pipe);
  return text;
}

TEST(TrainerArgv, FillsInTheRunFolderAndTheName) {
  RunConfig config;
  config.name = "x";
  config.run.command = {"prog", "--out={run_dir}/{name}", "{run_dir}{run_dir}", "{other}", "{\"name\": 1}"};
  EXPECT_EQ(trainer_argv(config, "/r/{name}"),
            (Words{"prog", "--out=/r/x/x", "/r/x/r/x", "{other}", "{\"name\": 1}"}));
}

TEST(TrainerArgv, AScriptIsShortForACommand) {
  RunConfig config;
  config.run.script = "/w/train.py";
  config.run.python = "/bin/python";
  config.run.args = {"--out", "{run_dir}"};
  EXPECT_EQ(trainer_argv(config, "/r"), (Words{"/bin/python", "-u", "/w/train.py", "--out", "/r"}));
}

TEST(TrainerArgv, AShellStopsAtTheFirstFailureAndAtUnsetVariables) {
  RunConfig config;
  const auto run = [&](const char* text) {
    config.run.shell = text;
    return output_of(shell_quoted(trainer_argv(config, "/r")) + " 2>/dev/null; echo =$?");
  };
  EXPECT_EQ(run("echo '{name}'\necho b"), "{name}\nb\n=0\n");
  EXPECT_EQ(run("false\necho b"), "=1\n");
  EXPECT_EQ(run("echo $NOT_SET_ANYWHERE\necho b"), "=2\n");
}

TEST(ShellQuoted, AShellReadsTheWordsBack) {
  const Words words = {"plain-1.0_@%+=:,/",
                       "",
                       " ",
                       "a b",
                       "it's",
                       "\"",
                       "$HOME",
                       "`id`",
                       "a\nb",
                       "*",
                       "~",
                       "\\",
                       "é",
                       "-x",
                       "!",
                       "#c",
                       "a;b",
                       "(",
                       "&",
                       "''"};
  EXPECT_EQ(shell_quoted({"python", "--lr", "1e-4"}), "python --lr 1e-4");
  std::string expected;
  for (const auto& word : words) expected += word + "|";
  EXPECT_EQ(output_of("printf '%s|' " + shell_quoted(words)), expected);
}

TEST(DryRun, IsAConfigWithTheCommandInComments) {
  TemporaryFolder folder;
  folder.write("train.py", "");
  const std::string path = folder.write(
      "config.yaml", "name: x\nrun: {script: train.py, python: sh, args: {a: 'b c'}, env: {A_KEY: canary}}");
  const auto config = load_config(path, {}, {});
  ASSERT_TRUE(config) << config.error().message;
  const std::string text = dry_run_text(*config);
  const std::string sh = *find_program("sh"), at = folder.path();
  EXPECT_EQ(text, effective_yaml(*config) + "\n# command: cd " + at + " && " + sh + " -u " + at +
                      "/train.py --a 'b c'\n# program: " + sh + "\n# runs go to: " + at + "/runs\n");
  const auto again = load_config(folder.write("again.yaml", text), {}, {{"A_KEY", "canary"}});
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(dry_run_text(*again), text);
}

TEST(DryRun, NamesTheProgramAndHidesSecrets) {
  RunConfig config;
  config.workdir = "/w o";
  config.run.command = {"./no-such-program", "--token", "canary", "a\nb"};
  config.output.dir = "/w/runs";
  config.secrets = {{"canary", "HF_TOKEN"}};
  const std::string text = dry_run_text(config);
  EXPECT_NE(text.find("\n# command: cd '/w o' && ./no-such-program --token ${HF_TOKEN} 'a\n# b'\n"
                      "# program: not found: /w o/./no-such-program\n# runs go to: /w/runs\n"),
            std::string::npos)
      << text;
}

}  // namespace
}  // namespace bitctl
