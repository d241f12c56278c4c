#include "config/schema_check.h"

#include <gtest/gtest.h>

namespace bitctl {
namespace {

std::string lines_of(const Json& schema, const std::string& yaml) {
  const auto document = parse_yaml(yaml, "c.yaml");
  if (!document) return document.error().str();
  std::string lines;
  for (const Problem& problem : check_schema(schema, *document)) lines += problem.str() + "\n";
  return lines;
}

std::string lines_of(const std::string& yaml) { return lines_of(parsed_schema("config.v1"), yaml); }

struct Case {
  const char* name;
  const char* yaml;
  const char* lines;
};

class ConfigSchema : public testing::TestWithParam<Case> {};

TEST_P(ConfigSchema, SaysWhatIsWrongAndWhere) { EXPECT_EQ(lines_of(GetParam().yaml), GetParam().lines); }

INSTANTIATE_TEST_SUITE_P(
    Each, ConfigSchema,
    testing::Values(
        Case{"smallest", "run: {script: train.py}", ""},
        Case{"unknown_at_the_top", "run: {script: x}\ncheckpoint: {}\n",
             "c.yaml:2:1: unknown key 'checkpoint' in the top level; did you mean 'checkpoints'?\n"},
        Case{"unknown_below", "run:\n  comand: [x]\n  script: x\n",
             "c.yaml:2:3: unknown key 'comand' in run; did you mean 'command'?\n"},
        Case{"unknown_deep", "run: {script: x}\ncheckpoints: {keep_best: {metric: loss, mod: min}}\n",
             "c.yaml:2:41: unknown key 'mod' in checkpoints.keep_best; did you mean 'mode'?\n"},
        Case{"unknown_and_far", "run: {script: x}\nstop: {sig: SIGTERM}\n",
             "c.yaml:2:8: unknown key 'sig' in stop; it knows signal, grace\n"},
        Case{"not_there_yet", "run: {script: x}\nhook: auto\n",
             "c.yaml:2:1: unknown key 'hook' in the top level; it knows version, name, labels, workdir, run, "
             "output, progress, checkpoints, restart, stop, watchdog, limits\n"},
        Case{"no_run", "name: x\n", "c.yaml:1:1: 'run' is missing in the top level\n"},
        Case{"empty_run", "run: {}\n", "c.yaml:1:6: run needs one of command, script, shell\n"},
        Case{"run_of_nothing", "name: x\nrun:\n", "c.yaml:2:1: run: expected a map, got nothing\n"},
        Case{"run_is_a_list", "run: [python, x]\n", "c.yaml:1:6: run: expected a map, got a list\n"},
        Case{"both", "run:\n  script: x\n  command: [y]\n",
             "c.yaml:3:3: run has script and command; keep one of them\n"},
        Case{"three", "run: {script: x, shell: z, command: [y]}\n",
             "c.yaml:1:18: run has script and shell and command; keep one of them\n"},
        Case{"args_without_script", "run: {command: [x], args: [y], python: z}\n",
             "c.yaml:1:21: 'args' in run needs 'script'\nc.yaml:1:32: 'python' in run needs 'script'\n"},
        Case{"top_is_a_list", "- run\n", "c.yaml:1:1: the top level: expected a map, got a list\n"},
        Case{"top_is_text", "run\n", "c.yaml:1:1: the top level: expected a map, got text\n"},
        Case{
            "command_is_text", "run: {command: python train.py --token canary}\n",
            "c.yaml:1:16: run.command: expected a list such as [python, train.py]; a line for the shell goes "
            "into run.shell, got text\n"},
        Case{
            "command_is_empty", "run: {command: []}\n",
            "c.yaml:1:16: run.command: expected a list such as [python, train.py]; a line for the shell goes "
            "into run.shell, got an empty list\n"},
        Case{"command_holds_a_map", "run: {command: [x, {a: b}]}\n",
             "c.yaml:1:20: run.command[1]: expected text, got a map\n"},
        Case{"script_is_a_number", "run: {script: 12}\n",
             "c.yaml:1:15: run.script: expected text, got 12 (in quotes it is text)\n"},
        Case{"version", "version: 2\nrun: {script: x}\n", "c.yaml:1:10: version: expected 1, got 2\n"},
        Case{"name", "name: ../x\nrun: {script: x}\n",
             "c.yaml:1:7: name: expected up to 64 letters, digits, '.', '_' and '-', the first a letter or "
             "digit, "
             "got '../x'\n"},
        Case{"name_is_a_number", "name: 007\nrun: {script: x}\n",
             "c.yaml:1:7: name: expected up to 64 letters, digits, '.', '_' and '-', the first a letter or "
             "digit, "
             "got 007 (in quotes it is text)\n"},
        Case{"choice", "run: {script: x}\nrestart: {policy: on_failure}\n",
             "c.yaml:2:19: restart.policy: expected one of never, on-failure, got 'on_failure'; did you mean "
             "'on-failure'?\n"},
        Case{"choice_far", "run: {script: x}\nwatchdog: {nan: ignore}\n",
             "c.yaml:2:17: watchdog.nan: expected one of warn, stop, rollback, got 'ignore'\n"},
        Case{"choice_is_a_number", "run: {script: x}\nstop: {signal: 15}\n",
             "c.yaml:2:16: stop.signal: expected one of SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, "
             "got "
             "15\n"},
        Case{"too_small", "run: {script: x}\ncheckpoints: {keep_last: 0}\n",
             "c.yaml:2:26: checkpoints.keep_last: expected a whole number from 1 to 1000000, got 0\n"},
        Case{"negative_steps", "run: {script: x}\ncheckpoints: {every: -5}\n",
             "c.yaml:2:22: checkpoints.every: expected a number of steps of at least 1, a duration such as "
             "5m, or "
             "auto, got -5\n"},
        Case{"huge", "run: {script: x}\nrestart: {max: 99999999999999999999999}\n",
             "c.yaml:2:16: restart.max: expected a whole number from 1 to 1000, got "
             "99999999999999999999999\n"},
        Case{"beyond_signed", "run: {script: x}\ncheckpoints: {keep_every: 18446744073709551615}\n",
             "c.yaml:2:27: checkpoints.keep_every: expected a whole number from 1 to 1000000000000, got "
             "18446744073709551615\n"},
        Case{"float_for_int", "run: {script: x}\nrestart: {max: 1e2}\n",
             "c.yaml:2:16: restart.max: expected a whole number from 1 to 1000, got 1e2\n"},
        Case{"infinite", "run: {script: x}\ncheckpoints: {every: .inf, keep_last: .nan}\n",
             "c.yaml:2:22: checkpoints.every: expected a number of steps of at least 1, a duration such as "
             "5m, or "
             "auto, got .inf\n"
             "c.yaml:2:39: checkpoints.keep_last: expected a whole number from 1 to 1000000, got .nan\n"},
        Case{"bool_for_int", "run: {script: x}\nrestart: {max: true}\n",
             "c.yaml:2:16: restart.max: expected a whole number from 1 to 1000, got true\n"},
        Case{
            "duration", "run: {script: x}\nrestart: {backoff: 5 minutes, backoff_max: -1s}\n",
            "c.yaml:2:20: restart.backoff: expected a duration such as 500ms, 30s or 1h30m, got '5 minutes'\n"
            "c.yaml:2:44: restart.backoff_max: expected a duration such as 500ms, 30s or 1h30m, got '-1s'\n"},
        Case{"duration_without_unit", "run: {script: x}\nlimits: {time: 30}\n",
             "c.yaml:2:16: limits.time: expected a duration such as 30m, 8h or 2d, got 30 (in quotes it is "
             "text)\n"},
        Case{"best_without_metric", "run: {script: x}\ncheckpoints:\n  keep_best: {mode: max}\n",
             "c.yaml:3:14: 'metric' is missing in checkpoints.keep_best\n"},
        Case{"exit_codes", "run: {script: x}\nrestart: {never_on: [1, 256, two]}\n",
             "c.yaml:2:25: restart.never_on[1]: expected a whole number from 1 to 255, got 256\n"
             "c.yaml:2:30: restart.never_on[2]: expected a whole number from 1 to 255, got text\n"},
        Case{"labels", "labels: {size: 3, a: [x]}\nrun: {script: x}\n",
             "c.yaml:1:22: labels.a: expected text, got a list\n"},
        Case{"env_hides_its_values", "run:\n  script: x\n  env: HF_TOKEN=canary\n",
             "c.yaml:3:8: run.env: expected a map, got text\n"},
        Case{"env_without_a_value", "run: {script: x, env: {A: , B: [canary]}}\n",
             "c.yaml:1:27: run.env.A: expected text (\"\" for an empty value), got nothing\n"
             "c.yaml:1:32: run.env.B: expected text (\"\" for an empty value), got a list\n"},
        Case{"env_required_hides_values", "run: {script: x, env_required: [HF_TOKEN=canary]}\n",
             "c.yaml:1:33: run.env_required[0]: expected the name of an environment variable, such as "
             "HF_TOKEN, "
             "got text\n"},
        Case{"args", "run: {script: x, args: {a: {b: c}, d: [[e]]}}\n",
             "c.yaml:1:28: run.args.a: expected text or null or a list, got a map\n"
             "c.yaml:1:40: run.args.d[0]: expected text, got a list\n"},
        Case{"many", "nam: x\nrun: {scrpt: x}\nrestart: {max: 0, polcy: never}\n",
             "c.yaml:1:1: unknown key 'nam' in the top level; did you mean 'name'?\n"
             "c.yaml:2:6: run needs one of command, script, shell\n"
             "c.yaml:2:7: unknown key 'scrpt' in run; did you mean 'script'?\n"
             "c.yaml:3:16: restart.max: expected a whole number from 1 to 1000, got 0\n"
             "c.yaml:3:19: unknown key 'polcy' in restart; did you mean 'policy'?\n"}),
    [](const auto& info) { return info.param.name; });

// The control: a schema that forgets to close its maps lets the typo pass, and this test sees the difference.
TEST(ConfigSchema, AnOpenSchemaWouldLetATypoPass) {
  const std::string typo = "run: {script: x, scirpt: y}\ncheckpoint: {every: 5}\n";
  Json open = parsed_schema("config.v1");
  open["additionalProperties"] = true;
  open["properties"]["run"]["additionalProperties"] = true;
  EXPECT_EQ(lines_of(open, typo), "");
  EXPECT_NE(lines_of(typo), "");
}

// So every map of the schema has to be closed, or to say what its free keys hold.
TEST(ConfigSchema, EveryMapIsClosed) {
  const std::function<void(const Json&, const std::string&)> check = [&](const Json& schema,
                                                                         const std::string& at) {
    const bool is_map = schema.value("type", Json()) == "object" || schema.contains("properties");
    if (is_map) {
      ASSERT_TRUE(schema.contains("additionalProperties")) << at;
      EXPECT_NE(schema["additionalProperties"], true) << at;
    }
    if (!schema.contains("properties")) return;
    for (const auto& [key, child] : schema["properties"].items()) check(child, at + "/" + key);
  };
  check(parsed_schema("config.v1"), "");
}

TEST(CheckSchema, WhatHasNoWordsIsStillRefused) {
  const Json schema = Json::parse(R"({"type": "object", "properties": {"a": {"not": {"type": "string"}}}})");
  EXPECT_EQ(lines_of(schema, "a: 1"), "");
  EXPECT_NE(lines_of(schema, "a: x"), "");
  const Json names = Json::parse(R"({"type": "object", "propertyNames": {"pattern": "^b"}})");
  EXPECT_NE(lines_of(names, "a: x"), "");
}

TEST(CheckSchema, LongTextsDoNotExhaustTheStack) {
  for (const char* key : {"name", "checkpoints: {every", "restart: {backoff"}) {
    const std::string closing = std::string(key).find('{') == std::string::npos ? "" : "}";
    for (const char* unit : {"a", "1s", "1", "1."}) {
      std::string text;
      while (text.size() < 200'000) text += unit;
      EXPECT_NE(lines_of("run: {script: x}\n" + std::string(key) + ": '" + text + "'" + closing + "\n"), "");
    }
  }
}

TEST(SchemaAt, FollowsPropertiesFreeKeysAndItems) {
  const Json& schema = parsed_schema("config.v1");
  EXPECT_EQ(schema_at(schema, ""), &schema);
  EXPECT_EQ((*schema_at(schema, "/checkpoints/keep_last"))["default"], 3);
  EXPECT_TRUE(schema_at(schema, "/run/env/A")->contains("errorMessage"));
  EXPECT_EQ((*schema_at(schema, "/restart/never_on/2"))["maximum"], 255);
  EXPECT_EQ(schema_at(schema, "/nothing"), nullptr);
}

TEST(Dotted, ReadsLikeTheConfig) {
  EXPECT_EQ(dotted(""), "the top level");
  EXPECT_EQ(dotted("/run/command/1"), "run.command[1]");
  EXPECT_EQ(dotted("/labels/a~1b~0c"), "labels.a/b~c");
}

}  // namespace
}  // namespace bitctl
