#include "config/environment.h"

#include <gtest/gtest.h>

#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

const Environment kEnvironment = {{"A", "one"}, {"EMPTY", ""}, {"B_2", "$A ${A}"}, {"BYTES", "\xff"}};

std::string expanded(const std::string& text) {
  Environment used;
  const auto result = expand(text, kEnvironment, used);
  return result ? *result : "! " + result.error().message;
}

TEST(Expand, FillsInVariablesAndLeavesTheRest) {
  EXPECT_EQ(expanded("x${A}y${A}"),
            "xoney"
            "one");
  EXPECT_EQ(expanded("${EMPTY}"), "");
  EXPECT_EQ(expanded("${EMPTY:-d}"), "d");
  EXPECT_EQ(expanded("${NO:-a b:-c}"), "a b:-c");
  EXPECT_EQ(expanded("${NO:-}"), "");
  EXPECT_EQ(expanded("${B_2}"), "$A ${A}");  // once, not again
  EXPECT_EQ(expanded("$A costs 5$ $"), "$A costs 5$ $");
  EXPECT_EQ(expanded("$${A} $$ $$$${A} $$${A}"), "${A} $ $${A} $one");
}

TEST(Expand, SaysWhatIsWrong) {
  EXPECT_EQ(
      expanded("x${NO}"),
      "! the environment variable NO is not set; set it, or write ${NO:-default}, or $${NO} for a plain "
      "${NO}");
  EXPECT_EQ(expanded("${BYTES}"), "! the environment variable BYTES is not valid UTF-8");
  EXPECT_EQ(expanded("${A"), "! '${' without '}'; write $${ for a plain ${");
  for (const char* text : {"${}", "${1}", "${A-x}", "${A:=x}", "${A:-${B}}", "${ A }", "${A.B}"})
    EXPECT_EQ(expanded(text), "! only ${NAME} and ${NAME:-default} are filled in; write $${ for a plain ${")
        << text;
}

TEST(Unexpand, IsTheInverseWithSecretsAsReferences) {
  const Environment environment = {{"TOKEN", "abc"}, {"LONG_KEY", "abcdef"}};
  const Secrets secrets = {{"abc", "TOKEN"}, {"abcdef", "LONG_KEY"}};
  EXPECT_EQ(unexpand("x abcd abcdef $", secrets), "x ${TOKEN}d ${LONG_KEY} $$");
  EXPECT_EQ(mask_secrets("x abcd abcdef $", secrets), "x ${TOKEN}d ${LONG_KEY} $");
  for (const char* text : {"$abc", "$$", "${TOKEN}", "$${x}abc$", "", "abcabcdef$$abc"}) {
    Environment used;
    EXPECT_EQ(expand(unexpand(text, secrets), environment, used).value_or("!"), text);
  }
}

TEST(IsSecret, GoesByTheNameUnlessTheValueIsASwitch) {
  for (const char* name : {"HF_TOKEN", "hf_token", "WANDB_API_KEY", "MY_SECRET_1", "DbPassword"})
    EXPECT_TRUE(is_secret(name, "x7")) << name;
  for (const char* name : {"LR", "PATH", "PASS", "OUTPUT"}) EXPECT_FALSE(is_secret(name, "x7")) << name;
  for (const char* value : {"", "0", "1", "false", "True", "no"})
    EXPECT_FALSE(is_secret("TOKENIZERS_PARALLELISM", value)) << value;
}

TEST(IsEnvironmentName, Table) {
  for (const char* name : {"A", "_", "a_1", "HF_TOKEN"}) EXPECT_TRUE(is_environment_name(name)) << name;
  for (const char* name : {"", "1A", "A-B", "A B", "A=B", "é"})
    EXPECT_FALSE(is_environment_name(name)) << name;
}

TEST(EnvFile, ReadsLinesQuotesAndComments) {
  const auto environment = parse_env_file(
      "# comment\n"
      "\n"
      "A=1\n"
      "  export B = \n"
      "B= two words # comment\n"
      "C='a # \"b\" $X \\n'  # comment\r\n"
      "D=\"line\\nnext \\\"q\\\" \\$X\"\n"
      "E=a#b\n"
      "F=\n"
      "G==x=\n"
      "A=last",
      "f.env");
  ASSERT_FALSE(environment);  // "B " is no name
  EXPECT_EQ(environment.error().message, "f.env:4: what stands before '=' is no name of a variable");

  const auto good = parse_env_file(
      "# comment\n\nA=1\nexport B= two words # comment\nC='a # \"b\" $X \\n'  # comment\r\n"
      "D=\"line\\nnext \\\"q\\\" \\$X\"\nE=a#b\nF=\nG==x=\nA=last",
      "f.env");
  ASSERT_TRUE(good) << good.error().message;
  EXPECT_EQ(*good, (Environment{{"A", "last"},
                                {"B", "two words"},
                                {"C", "a # \"b\" $X \\n"},
                                {"D", "line\nnext \"q\" $X"},
                                {"E", "a#b"},
                                {"F", ""},
                                {"G", "=x="}}));
}

TEST(EnvFile, RefusesWithTheLineAndNeverTheValue) {
  const std::pair<const char*, const char*> cases[] = {
      {"A=1\ncanary\n", "f.env:2: expected KEY=VALUE"},
      {"canary canary=1", "f.env:1: what stands before '=' is no name of a variable"},
      {"A='canary", "f.env:1: the quote is never closed"},
      {"A=\"canary\\\"", "f.env:1: the quote is never closed"},
      {"A='canary' canary", "f.env:1: text after the closing quote"},
      {"A=canary\xff", "f.env:1: not valid UTF-8 text"},
  };
  for (const auto& [text, message] : cases) {
    const auto environment = parse_env_file(text, "f.env");
    ASSERT_FALSE(environment) << text;
    EXPECT_EQ(environment.error().message, message);
  }
}

TEST(EnvFile, MissingAndStrangeFilesAreErrors) {
  TemporaryFolder folder;
  EXPECT_EQ(read_env_file(folder / "none").error().kind, ErrorKind::not_found);
  EXPECT_EQ(read_env_file(folder.path()).error().kind, ErrorKind::damaged);
}

}  // namespace
}  // namespace bitctl
