#include "config/run_config.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "base/install_layout.h"
#include "base/text.h"
#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

const std::string kSamples = BITCTL_SOURCE_DIR "/tests/samples/config";

// A folder with a train.py; load() writes a config into it and reads it.
class RunConfigTest : public testing::Test {
 protected:
  RunConfigTest() { folder_.write("train.py", "print()\n"); }

  Result<RunConfig> load(const std::string& yaml, const std::vector<std::string>& overrides = {},
                         const Environment& environment = {}) {
    return load_config(folder_.write("config.yaml", yaml), overrides, environment);
  }
  RunConfig loaded(const std::string& yaml, const std::vector<std::string>& overrides = {},
                   const Environment& environment = {}) {
    auto config = load(yaml, overrides, environment);
    if (config) return *std::move(config);
    ADD_FAILURE() << config.error().message;
    return {};
  }
  // Without the folder's own name, which changes from run to run.
  std::string error_of(const std::string& yaml, const std::vector<std::string>& overrides = {},
                       const Environment& environment = {}) {
    auto config = load(yaml, overrides, environment);
    if (config) return "no error";
    std::string message = config.error().message;
    for (size_t at = 0; (at = message.find(folder_.path() + "/", at)) != std::string::npos;)
      message.erase(at, folder_.path().size() + 1);
    return message;
  }

  TemporaryFolder folder_;
};

TEST_F(RunConfigTest, TheSmallestConfigHasEveryDefault) {
  const RunConfig config = loaded("run: {script: train.py}");
  EXPECT_EQ(config.source, folder_ / "config.yaml");
  EXPECT_EQ(config.name, safe_run_name(folder_.path().substr(folder_.path().rfind('/') + 1)));
  EXPECT_EQ(config.labels,
            (std::map<std::string, std::string>{{"dataset", "Unknown"}, {"profile", "Unknown"}}));
  EXPECT_EQ(config.workdir, folder_.path());
  EXPECT_EQ(config.run.script, folder_ / "train.py");
  EXPECT_EQ(config.run.python, absolute_path(*find_python(folder_.path())));
  EXPECT_EQ(config.output.dir, folder_ / "runs");
  EXPECT_EQ(config.progress.source, ProgressSource::automatic);
  EXPECT_TRUE(config.checkpoints.every.is_automatic());
  EXPECT_EQ(config.checkpoints.keep_last, 3);
  EXPECT_FALSE(config.checkpoints.keep_best);
  EXPECT_EQ(config.checkpoints.keep_every, 0);
  EXPECT_EQ(config.restart.policy, RestartPolicy::on_failure);
  EXPECT_EQ(config.restart.max, 3);
  EXPECT_EQ(config.restart.backoff, std::chrono::seconds(1));
  EXPECT_EQ(config.restart.backoff_max, std::chrono::seconds(60));
  EXPECT_EQ(config.restart.never_on, (std::vector<int>{2, 126, 127}));
  EXPECT_EQ(config.stop.signal, SIGTERM);
  EXPECT_FALSE(config.stop.grace);
  EXPECT_EQ(config.watchdog.nan, NanAction::warn);
  EXPECT_FALSE(config.watchdog.stall_off);
  EXPECT_FALSE(config.watchdog.stall);
  EXPECT_FALSE(config.limits.time);
}

TEST_F(RunConfigTest, TextReachesTheTrainerAsItWasWritten) {
  const RunConfig config = loaded(
      "run:\n  script: train.py\n  args: [--lr, 1e-4, --seed, 007, --v, 1.10, no, TRUE, 0x1F, '']\n"
      "  env: {LR: 2e-4, N: 007, V: 1.10, C: NO, B: TRUE, H: 0x1F, E: '', Q: '1e3', I: .inf}\n");
  EXPECT_EQ(config.run.args, (std::vector<std::string>{"--lr", "1e-4", "--seed", "007", "--v", "1.10", "no",
                                                       "TRUE", "0x1F", ""}));
  EXPECT_EQ(config.run.env, (Environment{{"LR", "2e-4"},
                                         {"N", "007"},
                                         {"V", "1.10"},
                                         {"C", "NO"},
                                         {"B", "TRUE"},
                                         {"H", "0x1F"},
                                         {"E", ""},
                                         {"Q", "1e3"},
                                         {"I", ".inf"}}));
}

TEST_F(RunConfigTest, AMapOfArgumentsBecomesFlags) {
  EXPECT_EQ(
      loaded("run:\n  script: train.py\n  args: {lr: 1e-4, bf16: true, shuffle: false, resume: null, gone:,\n"
             "    tags: [a, 007], none: [], -v: true, --out: x, quoted: 'true', text: ''}\n")
          .run.args,
      (std::vector<std::string>{"--lr", "1e-4", "--bf16", "--shuffle", "false", "--tags", "a", "007",
                                "--none", "-v", "--out", "x", "--quoted", "true", "--text", ""}));
  EXPECT_EQ(error_of("run: {script: train.py, args: {'a b': 1, 'c=d': 2, '': 3}}"),
            "config.yaml:1:32: run.args: this is no name of a flag\n"
            "config.yaml:1:42: run.args: this is no name of a flag\n"
            "config.yaml:1:52: run.args: this is no name of a flag");
}

TEST_F(RunConfigTest, PathsAreRelativeToTheFileAndAbsoluteAfterwards) {
  folder_.write("sub/other.py", "");
  folder_.write("sub/x.env", "A=1\n");
  const RunConfig config = loaded(
      "workdir: ${SUB}/.\nrun: {script: ./sub/../sub/other.py, env_file: sub/x.env, python: /bin/sh}\n"
      "output: {dir: ../elsewhere/}\nprogress: {source: pulse, file: s.json}\n",
      {}, {{"SUB", "sub"}});
  EXPECT_EQ(config.workdir, folder_ / "sub");
  EXPECT_EQ(config.run.script, folder_ / "sub/other.py");
  EXPECT_EQ(config.run.env_file, folder_ / "sub/x.env");
  EXPECT_EQ(config.run.python, "/bin/sh");
  EXPECT_EQ(config.output.dir, absolute_path(folder_.path() + "/../elsewhere"));
  EXPECT_EQ(config.progress.file, folder_ / "s.json");
}

TEST_F(RunConfigTest, VariablesAreFilledInOnlyWhereTheyShouldBe) {
  const Environment environment = {{"X", "value"}, {"EMPTY", ""}};
  const RunConfig config = loaded(
      "labels: {profile: '${X}'}\n"
      "run:\n  script: train.py\n  args: ['${X}', $$]\n  env: {A: '${X} ${NONE:-d} $$', B: '${EMPTY}'}\n",
      {}, environment);
  EXPECT_EQ(config.labels.at("profile"), "${X}");
  EXPECT_EQ(config.run.args, (std::vector<std::string>{"${X}", "$$"}));
  EXPECT_EQ(config.run.env, (Environment{{"A", "value d $"}, {"B", ""}}));
  EXPECT_EQ(loaded("run: {command: [echo, '${X}', $X]}", {}, environment).run.command,
            (std::vector<std::string>{"echo", "value", "$X"}));
  EXPECT_EQ(loaded("run: {shell: 'echo ${X}'}", {}, environment).run.shell, "echo ${X}");
  EXPECT_EQ(error_of("run:\n  command: [echo, x, '${NONE}']\n  env: {A: '${'}\n"),
            "config.yaml:2:22: run.command[2]: the environment variable NONE is not set; set it, or write "
            "${NONE:-default}, or $${NONE} for a plain ${NONE}\n"
            "config.yaml:3:12: run.env.A: '${' without '}'; write $${ for a plain ${");
}

TEST_F(RunConfigTest, TheEnvironmentFileLiesBelowEnv) {
  folder_.write("x.env", "A=file\nB=file\n");
  const RunConfig config = loaded(
      "run: {script: train.py, env: {A: own}, env_file: x.env, env_required: [A, B, C]}", {}, {{"C", "c"}});
  EXPECT_EQ(trainer_environment(config), (Environment{{"A", "own"}, {"B", "file"}}));
  EXPECT_EQ(error_of("run: {script: train.py, env_file: x.env, env_required: [B, C, D]}", {}, {{"D", ""}}),
            "config.yaml:1:60: run.env_required[1]: C is set neither in the environment nor in run.env or "
            "run.env_file\n"
            "config.yaml:1:63: run.env_required[2]: D is set neither in the environment nor in run.env or "
            "run.env_file");
  folder_.write("x.env", "A=1\ncanary\n");
  EXPECT_EQ(error_of("run: {script: train.py, env_file: x.env}"),
            "config.yaml:1:35: run.env_file: x.env:2: expected KEY=VALUE");
}

TEST_F(RunConfigTest, ThePythonIsTheOneNamedOrFound) {
  EXPECT_EQ(loaded("run: {script: train.py, python: sh}").run.python, *find_program("sh"));
  EXPECT_EQ(loaded("run: {script: train.py, python: auto}").run.python,
            absolute_path(*find_python(folder_.path())));
  EXPECT_EQ(error_of("run: {script: train.py, python: no-such-python}"),
            "config.yaml:1:33: run.python: no program 'no-such-python' along PATH");
  EXPECT_EQ(error_of("run: {script: train.py, python: bin/python}"),
            "config.yaml:1:33: run.python: no such program: bin/python");
}

TEST_F(RunConfigTest, OverridesGoThroughTheSameChecks) {
  const std::string yaml = "run: {script: train.py, env: {LR: 1}, args: {a: 1}}\n";
  const RunConfig config =
      loaded(yaml, {"run.env.LR=1e-4", "run.env.NEW=x=y", "run.args.trainer.lr=007", "checkpoints.every=5m",
                    "restart.never_on=[1, 2]", "restart.never_on=[3]", "labels.dataset=chat"});
  EXPECT_EQ(config.run.env, (Environment{{"LR", "1e-4"}, {"NEW", "x=y"}}));
  EXPECT_EQ(config.run.args, (std::vector<std::string>{"--a", "1", "--trainer.lr", "007"}));
  EXPECT_EQ(config.checkpoints.every.time, std::chrono::minutes(5));
  EXPECT_EQ(config.restart.never_on, (std::vector<int>{3}));
  EXPECT_EQ(config.labels.at("dataset"), "chat");
  EXPECT_EQ(loaded("name: x\n", {"run.script=train.py"}).run.script, folder_ / "train.py");

  EXPECT_EQ(
      error_of(yaml, {"checkpoints.keep_last=0", "run.evn.LR=1", "name=a b", "run.script.x=1", "canary",
                      "run.env.B=", "stop.signal=[", "run.env.C=${NONE}"}),
      "--set run.script.x: what stands at 'run.script' is no map\n"
      "--set: expected KEY=VALUE, such as run.env.LR=1e-4\n"
      "--set stop.signal: a map or a list cannot be a key; is every bracket closed?\n"
      "--set checkpoints.keep_last: checkpoints.keep_last: expected a whole number from 1 to 1000000, got 0\n"
      "--set name: name: expected up to 64 letters, digits, '.', '_' and '-', the first a letter or digit, "
      "got 'a b'\n"
      "--set run.evn.LR: unknown key 'evn' in run; did you mean 'env'?\n"
      "--set run.env.B: run.env.B: expected text (\"\" for an empty value), got nothing");
  EXPECT_EQ(error_of(yaml, {"run.env.C=${NONE}"}),
            "--set run.env.C: run.env.C: the environment variable NONE is not set; set it, or write "
            "${NONE:-default}, or $${NONE} for a plain ${NONE}");
}

TEST_F(RunConfigTest, StrangeFilesAreErrors) {
  EXPECT_EQ(load_config(folder_ / "none.yaml", {}, {}).error().kind, ErrorKind::not_found);
  EXPECT_EQ(load_config(folder_.path(), {}, {}).error().message, folder_.path() + ": a folder, not a file");
  folder_.write("large.yaml", std::string(300'000, '#'));
  EXPECT_EQ(load_config(folder_ / "large.yaml", {}, {}).error().message,
            folder_ / "large.yaml" + ": larger than 262144 bytes");
  const std::string odd = folder_.write("b\xff/config.yaml", "run: {shell: x}");
  EXPECT_EQ(load_config(odd, {}, {}).error().message, odd + ": the path is not valid UTF-8");
}

TEST_F(RunConfigTest, AFailedLoadNeverShowsASecret) {
  folder_.write("x.env", "MY_TOKEN=canary-file\nDB_PASSWORD=canary-file\nbroken canary\n");
  folder_.write("y.env", "MY_TOKEN=canary-file\n");
  const Environment environment = {{"HF_TOKEN", "canary-env"}, {"MY_PASSWORD", "canary/env"}};
  const std::string env = "  env: {HF_TOKEN: '${HF_TOKEN}', A_KEY: canary-literal}\n";
  const std::vector<std::string> yamls = {
      "run:\n  script: absent.py\n" + env,
      "run:\n  script: train.py\n  env_file: x.env\n",
      "workdir: '/${MY_PASSWORD}'\nrun:\n  script: '${HF_TOKEN}/x.py'\n  python: 'a/${HF_TOKEN}'\n" + env,
      "workdir: /canary-file\nrun: {script: train.py, env_file: y.env}\n",
      "run:\n  script: train.py\n  env: [HF_TOKEN=canary]\n",
      "run:\n  script: train.py\n  env: HF_TOKEN=canary\n",
      "run:\n  script: train.py\n  env: {HF_TOKEN: [canary]}\n",
      "run:\n  script: train.py\n  env: {HF_TOKEN: {canary: 1}}\n",
      "run:\n  script: train.py\n  env: {HF_TOKEN: '${canary'}\n",
      "run:\n  script: train.py\n  env: {HF_TOKEN: '${X-canary}'}\n",
      "run:\n  script: train.py\n  env: {HF_TOKEN: *canary}\n",
      "run:\n  script: train.py\n  env: {HF_TOKEN: !canary x}\n",
      "run:\n  script: train.py\n  env: {HF_TOKEN: 'canary}\n",
      "run:\n  script: train.py\n  env:\n    HF_TOKEN: canary: x\n",
      "run:\n  script: train.py\n  args: --token canary\n",
      "run:\n  command: train.py --token canary\n",
      "run:\n  script: train.py\n  env_required: [HF_TOKEN=canary]\n",
  };
  for (const std::string& yaml : yamls) {
    const auto config = load(yaml, {}, environment);
    ASSERT_FALSE(config) << yaml;
    EXPECT_EQ(config.error().message.find("canary"), std::string::npos) << yaml << config.error().message;
  }
  // The control: without the mask the paths above would hold it.
  EXPECT_NE(error_of("run: {script: '${PLAIN}/x.py'}", {}, {{"PLAIN", "canary"}}).find("canary"),
            std::string::npos);
}

TEST(ConfigFromCommand, RunsWhereItIsCalledAndTakesTheScriptsName) {
  TemporaryFolder folder;
  folder.write("train.py", "");
  folder.write("src/my model.py", "");
  const auto config =
      config_from_command({"python", "-u", "train.py", "--lr", "1e-3", "${X}"}, folder.path());
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->name, "train");
  EXPECT_EQ(config->source, "");
  EXPECT_EQ(config->workdir, folder.path());
  EXPECT_EQ(config->output.dir, folder / "runs");
  EXPECT_EQ(config->run.command,
            (std::vector<std::string>{"python", "-u", "train.py", "--lr", "1e-3", "${X}"}));

  const auto name_of_run = [&](const std::vector<std::string>& argv) {
    const auto result = config_from_command(argv, folder.path());
    return result ? result->name : result.error().message;
  };
  EXPECT_EQ(name_of_run({"/usr/bin/python3.11", "-X", "dev", "src/my model.py"}), "my-model");
  EXPECT_EQ(name_of_run({"torchrun", "--nproc-per-node=2", "train.py"}), "torchrun");
  EXPECT_EQ(name_of_run({"python", "-m", "torch.distributed.run", "train.py"}), "python");
  EXPECT_EQ(name_of_run({"python", "-c", "pass"}), "python");
  EXPECT_EQ(name_of_run({"./run.sh"}), "run.sh");
  EXPECT_EQ(name_of_run({"python", "absent.py"}), "Training script not found: " + folder / "absent.py");
  EXPECT_EQ(name_of_run({}), "expected a command after --, such as: bitctl train -- python train.py");
  EXPECT_EQ(name_of_run({""}), "expected a command after --, such as: bitctl train -- python train.py");
}

TEST(RunName, Rules) {
  for (const char* name : {"a", "A-1_b.c", "0x", "a.."}) EXPECT_TRUE(is_run_name(name)) << name;
  EXPECT_TRUE(is_run_name(std::string(64, 'a')));
  EXPECT_FALSE(is_run_name(std::string(65, 'a')));
  for (const char* name : {"", ".", "..", "-rf", ".hidden", "a/b", "../x", "a b", "a\nb", "é"})
    EXPECT_FALSE(is_run_name(name)) << name;
  EXPECT_FALSE(is_run_name(std::string("a\0b", 3)));
}

TEST(RunName, AnyTextCanBeMadeSafe) {
  const std::pair<const char*, const char*> cases[] = {{"train", "train"}, {"my model (2)", "my-model-2"},
                                                       {"...x", "x"},      {"größe", "gr-e"},
                                                       {"///", "run"},     {"", "run"},
                                                       {"-rf", "rf"},      {"a/../b", "a-..-b"}};
  for (const auto& [text, name] : cases) EXPECT_EQ(safe_run_name(text), name);
  EXPECT_EQ(safe_run_name(std::string(100, 'a')), std::string(64, 'a'));
  for (int c = 0; c < 256; ++c) EXPECT_TRUE(is_run_name(safe_run_name(std::string(3, static_cast<char>(c)))));
}

}  // namespace
}  // namespace bitctl
