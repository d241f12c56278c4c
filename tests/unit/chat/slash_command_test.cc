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
  EXPECT_EQ(interpret("/send"), is(Kind::send));
  EXPECT_EQ(interpret("/system You are brief.\nAnd kind."), is(Kind::system, "You are brief.\nAnd kind."));
  EXPECT_EQ(interpret("/system"), is(Kind::system));
  EXPECT_EQ(interpret("/model org/tiny"), is(Kind::model, "org/tiny"));
  EXPECT_EQ(interpret("/set top_p=0.9 top_k=5"), is(Kind::set, "top_p=0.9 top_k=5"));
  EXPECT_EQ(interpret("/seed"), is(Kind::seed));
  EXPECT_EQ(interpret("/show prompt"), is(Kind::show, "prompt"));
}

TEST(SlashCommand, AnUnknownOneIsAnErrorAndNeverAPrompt) {
  EXPECT_EQ(interpret("/hlp"), is(Kind::unknown, "unknown command /hlp; did you mean /help?"));
  EXPECT_EQ(
      interpret("/etc/passwd"),
      is(Kind::unknown, "unknown command /etc/passwd; /help lists them, //etc/passwd sends it as text"));
  EXPECT_EQ(interpret("/quit now").kind, Kind::unknown);
  EXPECT_EQ(interpret("/").kind, Kind::unknown);
  EXPECT_EQ(interpret("/model"), is(Kind::unknown, "/model needs an argument: /model PATH"));
}

TEST(SlashCommand, TheHelpNamesEveryCommand) {
  for (const char* name : {"/help",  "/status", "/model", "/latest",  "/retry", "/system", "/set",
                           "/seed",  "/show",   "/regen", "/compare", "/undo",  "/edit",   "/read",
                           "/clear", "/save",   "/load",  "/stats",   "/send",  "/quit"}) {
    EXPECT_THAT(slash_command_help(), testing::HasSubstr(std::string("  ") + name + " ")) << name;
    EXPECT_THAT(interpret(name).text, testing::Not(testing::HasSubstr("unknown command"))) << name;
  }
  EXPECT_THAT(slash_command_help(), testing::HasSubstr("//x"));
}

}  // namespace
}  // namespace bitctl
