#include <gtest/gtest.h>

#include "config/run_config.h"
#include "config/schema_check.h"
#include "config/yaml_document.h"
#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

TEST(EffectiveYaml, WritesEveryFieldInTheOrderOfTheDocumentation) {
  RunConfig config;
  config.name = "x";
  config.workdir = "/w o";
  config.run.script = "/w/train.py";
  config.run.args = {"--lr", "1e-4", "", "true", "null", "a: b", "it's", "$5", "[x]", "~", "\x1b\u2028é\n"};
  config.run.python = "/bin/python";
  config.run.env = {{"A", "no"}, {"B", "007"}, {"MY_KEY", "canary"}, {"N", "Null"}, {"PRICE", "$${X}"}};
  config.run.env_file = "/w/.env";
  config.run.env_required = {"HF_TOKEN"};
  config.output.dir = "/w/runs";
  config.progress = {ProgressSource::pulse, "/w/s.json"};
  config.checkpoints = {{500, {}}, 2, KeepBest{"eval_loss", BestMode::max, 4}, 1000};
  config.restart.backoff = std::chrono::milliseconds(90'500);
  config.restart.backoff_max = std::chrono::hours(49);
  config.stop.grace = std::chrono::seconds(0);
  config.limits.time = std::chrono::minutes(90);
  config.secrets = {{"canary", "MY_KEY"}};
  EXPECT_EQ(
      effective_yaml(config),
      "version: 1\n"
      "name: x\n"
      "labels:\n"
      "  dataset: Unknown\n"
      "  profile: Unknown\n"
      "workdir: \"/w o\"\n"
      "run:\n"
      "  script: /w/train.py\n"
      "  args: [\"--lr\", \"1e-4\", \"\", \"true\", \"null\", \"a: b\", \"it's\", \"$5\", \"[x]\", \"~\", "
      "\"\\u001b\u2028é\\n\"]\n"
      "  python: /bin/python\n"
      "  env:\n"
      "    A: \"no\"\n"
      "    B: \"007\"\n"
      "    MY_KEY: \"${MY_KEY}\"\n"
      "    N: \"Null\"\n"
      "    PRICE: \"$$$${X}\"\n"
      "  env_file: /w/.env\n"
      "  env_required: [HF_TOKEN]\n"
      "  hook: auto\n"
      "output:\n"
      "  dir: /w/runs\n"
      "progress:\n"
      "  source: pulse\n"
      "  file: /w/s.json\n"
      "checkpoints:\n"
      "  every: 500\n"
      "  keep_last: 2\n"
      "  keep_best:\n"
      "    metric: eval_loss\n"
      "    mode: max\n"
      "    count: 4\n"
      "  keep_every: 1000\n"
      "restart:\n"
      "  policy: on-failure\n"
      "  max: 3\n"
      "  backoff: 1m30s500ms\n"
      "  backoff_max: 2d1h\n"
      "  never_on: [2, 126, 127]\n"
      "  warm: auto\n"
      "stop:\n"
      "  signal: SIGTERM\n"
      "  grace: 0s\n"
      "watchdog:\n"
      "  stall: auto\n"
      "  nan: warn\n"
      "limits:\n"
      "  time: 1h30m\n");
}

// The schema tells editors the defaults; the structs are where they come from.
TEST(EffectiveYaml, TheDefaultsOfTheSchemaAreTheDefaults) {
  RunConfig config;
  config.name = "x";
  config.run.command = {"x"};
  const auto document = parse_yaml(effective_yaml(config), "effective");
  ASSERT_TRUE(document);
  int seen = 0;
  const std::function<void(const Json&, const std::string&)> compare = [&](const Json& schema,
                                                                           const std::string& pointer) {
    if (schema.contains("default")) {
      ++seen;
      EXPECT_EQ(document->json[Json::json_pointer(pointer)], schema["default"]) << pointer;
    }
    if (!schema.contains("properties")) return;
    for (const auto& [key, child] : schema["properties"].items()) compare(child, child_pointer(pointer, key));
  };
  compare(parsed_schema("config.v1"), "");
  EXPECT_GE(seen, 12);
}

class Written : public testing::Test {
 protected:
  // The environment that a config gets once it was written down and read again.
  Environment after_round_trip(const Environment& written, const Environment& environment,
                               const Environment& environment_later) {
    std::string yaml = "run:\n  shell: x\n  env:\n";
    for (const auto& [name, value] : written) yaml += "    " + name + ": " + Json(value).dump() + "\n";
    const auto config = load_config(folder_.write("config.yaml", yaml), {}, environment);
    if (!config) return {{"error", config.error().message}};
    text_ = effective_yaml(*config);
    EXPECT_EQ(text_.find("canary"), std::string::npos) << text_;
    const auto again = load_config(folder_.write("again.yaml", text_), {}, environment_later);
    return again ? again->run.env : Environment{{"error", again.error().message}};
  }

  TemporaryFolder folder_;
  std::string text_;
};

TEST_F(Written, SecretsComeFromTheEnvironmentAgain) {
  EXPECT_EQ(after_round_trip({{"HF_TOKEN", "canary"}}, {}, {{"HF_TOKEN", "new"}}),
            (Environment{{"HF_TOKEN", "new"}}));
  EXPECT_EQ(after_round_trip({{"HF_TOKEN", "${MY_VAR}"}}, {{"MY_VAR", "canary"}}, {{"MY_VAR", "new"}}),
            (Environment{{"HF_TOKEN", "new"}}));
  EXPECT_EQ(
      after_round_trip({{"HEADER", "Bearer ${MY_TOKEN}!"}}, {{"MY_TOKEN", "canary"}}, {{"MY_TOKEN", "new"}}),
      (Environment{{"HEADER", "Bearer new!"}}));
  EXPECT_EQ(after_round_trip({{"HF_TOKEN", "${NONE:-canary}"}}, {}, {{"HF_TOKEN", "new"}}),
            (Environment{{"HF_TOKEN", "new"}}));
  EXPECT_NE(after_round_trip({{"HF_TOKEN", "canary"}}, {}, {}).at("error").find("HF_TOKEN is not set"),
            std::string::npos);
}

TEST_F(Written, TwoSecretsOfOneNameAreBothHidden) {
  after_round_trip({{"HF_TOKEN", "canary-1"}, {"B", "${HF_TOKEN}"}}, {{"HF_TOKEN", "canary-2"}},
                   {{"HF_TOKEN", "x"}});
  EXPECT_NE(text_.find("HF_TOKEN: \"${HF_TOKEN}\""), std::string::npos) << text_;
}

TEST_F(Written, ACommandComesBackWordForWord) {
  const std::vector<std::string> argv = {"./run.sh", "${X}", "$$", "$", "", "a b", "{x}", "1e-4", "no"};
  const auto config = config_from_command(argv, folder_.path());
  ASSERT_TRUE(config);
  const std::string text = effective_yaml(*config);
  const auto again = load_config(folder_.write("again.yaml", text), {}, {});
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->run.command, argv);
  EXPECT_EQ(effective_yaml(*again), text);
}

TEST_F(Written, WhatIsNoSecretIsWrittenOut) {
  EXPECT_EQ(after_round_trip({{"TOKENIZERS_PARALLELISM", "false"}, {"LR", "${LR}"}}, {{"LR", "1e-4"}}, {}),
            (Environment{{"TOKENIZERS_PARALLELISM", "false"}, {"LR", "1e-4"}}));
}

TEST_F(Written, AnyTextComesBack) {
  Environment environment;
  const char* texts[] = {"",
                         " ",
                         "a\nb\n",
                         "\t",
                         "é\u0085\u2028\ufeff",
                         "\u007f\u009b",
                         "'",
                         "\"",
                         "\\",
                         "#x",
                         "x # y",
                         "x: y",
                         "- x",
                         "{a}",
                         "*a",
                         "&a",
                         "!x",
                         "|",
                         ">",
                         "%x",
                         "@x",
                         "`x",
                         "?",
                         ":",
                         "null",
                         "~",
                         "true",
                         "1e-4",
                         "0x1F",
                         ".inf",
                         "no",
                         "<<",
                         "---",
                         "...",
                         "$",
                         "$${a}",
                         "${a}$$",
                         "a$b",
                         ",",
                         "[",
                         "x'y\"",
                         "\r\n",
                         "\\n",
                         "\U0001f600",
                         "=",
                         "2026-11-20",
                         "-",
                         "a:"};
  for (const char* text : texts) {
    std::string escaped;
    for (const char c : std::string(text)) escaped += c == '$' ? "$$" : std::string(1, c);
    EXPECT_EQ(after_round_trip({{"A", escaped}}, {}, {}), (Environment{{"A", text}})) << text_;
  }
}

}  // namespace
}  // namespace bitctl
