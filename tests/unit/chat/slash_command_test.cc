#include "chat/slash_command.h"

#include <gmock/gmock.h>

namespace bitctl {
namespace {

using Kind = SlashCommand::Kind;

SlashCommand is(Kind kind, std::string text = "") { return {kind, std::move(text)}; }

TEST(SlashCommand, WhatIsSentIsAPromptOrACommand) {
  EXPECT_EQ(interpret("hello"), is(Kind::prompt, "hello"));
  EXPECT_EQ(interpret("1/2"), is(Kind::prompt, "1/2"));
  EXPECT_EQ(interpret("//etc/passwd"), is(Kind::prompt, "/etc/passwd"));
  EXPECT_EQ(interpret("/help"), is(Kind::help));
  EXPECT_EQ(interpret("/status"), is(Kind::status));
  EXPECT_EQ(interpret("/retry"), is(Kind::retry));
  EXPECT_EQ(interpret("/clear"), is(Kind::clear));
  EXPECT_EQ(interpret("/quit"), is(Kind::quit));
  EXPECT_EQ(interpret("/send"), is(Kind::nothing));
  EXPECT_EQ(interpret("/system You are brief.\nAnd kind."), is(Kind::system, "You are brief.\nAnd kind."));
  EXPECT_EQ(interpret("/system"), is(Kind::system));
}

TEST(SlashCommand, AnUnknownOneIsAnErrorAndNeverAPrompt) {
  EXPECT_EQ(interpret("/hlp"), is(Kind::unknown, "unknown command /hlp; did you mean /help?"));
  EXPECT_EQ(
      interpret("/etc/passwd"),
      is(Kind::unknown, "unknown command /etc/passwd; /help lists them, //etc/passwd sends it as text"));
  EXPECT_EQ(interpret("/quit now").kind, Kind::unknown);
  EXPECT_EQ(interpret("/").kind, Kind::unknown);
}

TEST(SlashCommand, TheHelpNamesEveryCommand) {
  for (const char* name : {"/help", "/status", "/retry", "/system", "/clear", "/send", "/quit", "//x"})
    EXPECT_THAT(std::string(slash_command_help()), testing::HasSubstr(name));
}

}  // namespace
}  // namespace bitctl
