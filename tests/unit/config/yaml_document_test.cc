#include "config/yaml_document.h"

#include <gtest/gtest.h>

#include <chrono>

#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

YamlDocument parsed(const std::string& text) {
  auto document = parse_yaml(text, "c.yaml");
  if (!document) {
    ADD_FAILURE() << document.error().str();
    return {};
  }
  return *std::move(document);
}

TEST(YamlDocument, KeepsOrderTypesTextAndPlaces) {
  const auto document = parsed(
      "b: 1e-4\n"
      "a:\n"
      "  - 007\n"
      "  - \"007\"\n"
      "  - {x/y: 1.10, 'é': NO}\n"
      "none: ~\n");
  EXPECT_EQ(document.json.dump(), R"({"b":0.0001,"a":[7,"007",{"x/y":1.1,"é":"NO"}],"none":null})");
  EXPECT_EQ(document.at("/b").text, "1e-4");
  EXPECT_EQ(document.at("/a/0").text, "007");
  EXPECT_EQ(document.at("/a/2/x~1y").text, "1.10");
  EXPECT_EQ(document.at("/b").place.str(), "c.yaml:1:4");
  EXPECT_EQ(document.at("/b").key_place.str(), "c.yaml:1:1");
  EXPECT_EQ(document.at("/a").place.str(), "c.yaml:2:1");  // a block is where its key is
  EXPECT_EQ(document.at("/a/1").place.str(), "c.yaml:4:5");
  EXPECT_EQ(document.at("/a/2/é").key_place.str(), "c.yaml:5:17");
  EXPECT_EQ(document.at("/a/2/é").place.str(), "c.yaml:5:22");  // characters, not bytes
  EXPECT_EQ(document.at("/none").place.str(), "c.yaml:6:7");
  EXPECT_EQ(document.at("").place.str(), "c.yaml:1:1");
}

TEST(YamlDocument, ReadsBlockTextCommentsByteOrderMarkAndDosLines) {
  EXPECT_EQ(parsed("\xef\xbb\xbf# note\r\na: x # more\r\nb: |\r\n  one\r\n  two\r\n").json.dump(),
            R"({"a":"x","b":"one\ntwo\n"})");
  EXPECT_EQ(parsed("a: >-\n  one\n  two\n").json.dump(), R"({"a":"one two"})");
  EXPECT_EQ(parsed("--- # start\na: 1\n...\n").json.dump(), R"({"a":1})");
  EXPECT_EQ(parsed("'it''s': \"a\\\"b\\u00e9\"").json.dump(), R"({"it's":"a\"bé"})");
}

TEST(YamlDocument, AnAbsentValueStandsWhereItsKeyStands) {
  EXPECT_EQ(parsed("a:\nb: 1\n").at("/a").place.str(), "c.yaml:1:1");
}

TEST(YamlDocument, NothingIsNull) {
  for (const char* text : {"", "\n\n", "# only a comment\n", "---\n"}) {
    EXPECT_TRUE(parsed(text).json.is_null()) << text;
    EXPECT_TRUE(parsed(text).has("")) << text;
  }
}

struct Bad {
  const char* name;
  std::string text;
  const char* message;
};

class YamlBad : public testing::TestWithParam<Bad> {};

TEST_P(YamlBad, IsRefusedWithLineAndColumn) {
  const auto document = parse_yaml(GetParam().text, "c.yaml");
  ASSERT_FALSE(document) << document->json;
  EXPECT_EQ(document.error().str(), GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    Each, YamlBad,
    testing::Values(
        Bad{"anchor", "a: &x 1\n",
            "c.yaml:1:4: anchors (&) are not allowed in a config; write the value out"},
        Bad{"unknown_alias", "a: *x\n", "c.yaml:1:4: YAML: the referenced anchor is not defined"},
        Bad{"anchor_of_a_map", "a: &x\n  b: 1\n",
            "c.yaml:1:4: anchors (&) are not allowed in a config; write the value out"},
        Bad{"tag", "a: 1\nb: !!str 1\n", "c.yaml:2:4: tags (!) are not allowed in a config"},
        Bad{"python_tag", "a: !!python/object/apply:os.system [ls]\n",
            "c.yaml:1:4: tags (!) are not allowed in a config"},
        Bad{"plain_tag", "a: ! 1\n", "c.yaml:1:4: tags (!) are not allowed in a config"},
        Bad{"plain_tag_of_a_map", "a: ! {b: 1}\n", "c.yaml:1:4: tags (!) are not allowed in a config"},
        Bad{"tag_of_nothing", "a: !!null\nb: 1\n", "c.yaml:1:4: tags (!) are not allowed in a config"},
        Bad{"duplicate", "a: 1\nb: 2\na: 3\n", "c.yaml:3:1: the key 'a' stands here a second time"},
        Bad{"duplicate_in_flow", "{a: 1, \"a\": 2}", "c.yaml:1:8: the key 'a' stands here a second time"},
        Bad{"duplicate_by_type", "1: a\n'1': b\n", "c.yaml:2:1: the key '1' stands here a second time"},
        Bad{"merge", "a:\n  <<: {b: 1}\n", "c.yaml:2:3: merge keys (<<) are not allowed in a config"},
        Bad{"null_key", "~: 1\n", "c.yaml:1:1: a key is missing here"},
        Bad{"map_as_key", "? {a: 1}\n: 2\n",
            "c.yaml:1:3: a map or a list cannot be a key; is every bracket closed?"},
        Bad{"two_documents", "a: 1\n---\nb: 2\n",
            "c.yaml:2:1: a second document starts here; a config is one document"},
        Bad{"text_after_the_end", "a: 1\n...\nmore\n",
            "c.yaml:3:1: a second document starts here; a config is one document"},
        Bad{"tab", "run:\n\tscript: x\n", "c.yaml:2:1: a tab in the indentation; YAML wants spaces"},
        Bad{"tab_after_spaces", "run:\n  a: 1\n  \tb: 2\n",
            "c.yaml:3:3: a tab in the indentation; YAML wants spaces"},
        Bad{"open_single_quote", "a: 'x\nb: 1\n", "c.yaml:1:4: the quote that opens here is never closed"},
        Bad{"open_double_quote", "a: \"x\\\"\n", "c.yaml:1:4: the quote that opens here is never closed"},
        Bad{"open_list", "a: [1, 2\n", "c.yaml:2:1: a '[' is not closed before this"},
        Bad{"open_map", "a: {b: 1\n", "c.yaml:2:1: a '{' is not closed before this"},
        Bad{"stray_bracket", "a: 1]\nb: ]\n", "c.yaml:2:4: a closing bracket that nothing opened"},
        Bad{"two_colons", "a: b: c\n",
            "c.yaml:1:5: a ':' cannot stand here; put text that holds ': ' in quotes"},
        Bad{"at_sign", "a: @x\n", "c.yaml:1:4: text that starts with this character needs quotes"},
        Bad{"indentation", "a:\n    b: 1\n  c: 2\n",
            "c.yaml:3:3: this does not fit the lines above; is the indentation right?"},
        Bad{"latin1", "a: 1\nb: \xe9\n", "c.yaml:2:4: not valid UTF-8"},
        Bad{"utf16",
            std::string("\xff\xfe"
                        "a\0",
                        4),
            "c.yaml:1:1: not valid UTF-8"},
        Bad{"nul", std::string("a: \0", 4), "c.yaml:1:4: the control character 0x00"},
        Bad{"escaped_nul", "a: \"x\\0\"\n", "c.yaml:1:4: a NUL byte cannot stand in a config"},
        Bad{"escape_sequence", "a: \x1b[31m\n", "c.yaml:1:4: the control character 0x1b"},
        Bad{"carriage_return", "a: x\rb: y\r", "c.yaml:1:5: a carriage return without a line feed"},
        Bad{"lone_surrogate", "a: \"\\ud83d\"\n", "c.yaml:1:11: YAML: invalid unicode: 55357"},
        Bad{"large", std::string(kMaxConfigBytes + 1, '#'), "c.yaml:1:1: larger than 256 KiB"}),
    [](const auto& info) { return info.param.name; });

TEST(YamlDocument, DepthIsLimited) {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(parse_yaml(nested(kMaxConfigDepth), "c.yaml"));
  const auto deeper = parse_yaml(nested(kMaxConfigDepth + 1), "c.yaml");
  ASSERT_FALSE(deeper);
  EXPECT_EQ(deeper.error().str(), "c.yaml:1:33: nested deeper than 32 levels");
  for (const std::string opening : {"[", "{a: ", "- ", "? ", "{"}) {
    std::string text;
    while (text.size() < 200'000) text += opening;
    EXPECT_FALSE(parse_yaml(text, "c.yaml")) << opening;
  }
}

// 396 bytes that a parser which follows aliases turns into more than two million nodes.
TEST(YamlDocument, AnAliasBombIsRefusedAtItsFirstAnchor) {
  const std::string bomb = read_text(BITCTL_SOURCE_DIR "/tests/samples/config/bad/alias-bomb.yaml");
  ASSERT_EQ(bomb.size(), 396u);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(parse_yaml(bomb, "c.yaml"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
}

bool below_env(const std::string& pointer) { return pointer == "/run/env"; }

std::string after(const std::string& text, const std::vector<std::string>& assignments) {
  auto document = parsed(text);
  for (const auto& assignment : assignments)
    if (const auto problem = override_value(document, assignment, below_env)) return problem->str();
  return document.json.dump();
}

TEST(OverrideValue, ReplacesAddsAndKeepsText) {
  EXPECT_EQ(after("{a: {b: 1, c: 2}}", {"a.b=[x, 2]"}), R"({"a":{"b":["x",2],"c":2}})");
  EXPECT_EQ(after("{a: 1}", {"b.c.d=x", "b.c.e=y", "b.c.d=z"}), R"({"a":1,"b":{"c":{"d":"z","e":"y"}}})");
  EXPECT_EQ(after("{}", {"run.env.A.B=1"}), R"({"run":{"env":{"A.B":1}}})");
  EXPECT_EQ(after("{a: 1}", {"a="}), R"({"a":null})");
  EXPECT_EQ(after("{a: 1}", {"a=x=y"}), R"({"a":"x=y"})");
  auto document = parsed("a: {b: 1}");
  ASSERT_FALSE(override_value(document, "a=1e-4", below_env));
  EXPECT_EQ(document.at("/a").text, "1e-4");
  EXPECT_EQ(document.at("/a").place.str(), "--set a");
  EXPECT_FALSE(document.has("/a/b"));
}

TEST(OverrideValue, RefusesWithTheKeyAndNeverTheValue) {
  EXPECT_EQ(after("{}", {"canary"}), "--set: expected KEY=VALUE, such as run.env.LR=1e-4");
  EXPECT_EQ(after("{}", {"=canary"}), "--set: expected KEY=VALUE, such as run.env.LR=1e-4");
  EXPECT_EQ(after("{a: [1]}", {"a.b=canary"}), "--set a.b: what stands at 'a' is no map");
  EXPECT_EQ(after("{}", {"a..b=canary"}), "--set a..b: a dot with nothing beside it");
  EXPECT_EQ(after("{}", {"a.=canary"}), "--set a.: a dot with nothing beside it");
  EXPECT_EQ(after("{}", {".a=canary"}), "--set .a: a dot with nothing beside it");
  EXPECT_EQ(after("{}", {"a=[canary"}), "--set a: a map or a list cannot be a key; is every bracket closed?");
  EXPECT_EQ(after("{}", {"a=&x canary"}),
            "--set a: anchors (&) are not allowed in a config; write the value out");
}

}  // namespace
}  // namespace bitctl
