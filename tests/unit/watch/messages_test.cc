#include "watch/messages.h"

#include <gtest/gtest.h>

namespace bitctl {
namespace {

TEST(Messages, AnythingButAnObjectWithATypeIsRefused) {
  for (const char* text :
       {"", "[]", "{}", R"({"type": 1})", R"({"type": "x", "type": "y"})", "{\"type\": \"x\"", "\xff"})
    EXPECT_FALSE(message_from(text)) << text;
  EXPECT_TRUE(message_from(R"({"type": "unknown", "more": [1]})"));
}

TEST(Messages, ProgressFieldsAreCheckedOneByOne) {
  const auto parse = [](const char* text) { return progress_from(*message_from(text)); };
  EXPECT_TRUE(parse(R"({"type": "progress", "step": 1})"));
  EXPECT_TRUE(parse(R"({"type": "progress", "step": 1, "loss": null, "lr": 1e-4, "epoch": 0, "extra": {}})"));
  for (const char* text : {R"({"type": "progress"})", R"({"type": "progress", "step": -1})",
                           R"({"type": "progress", "step": 1.5})", R"({"type": "progress", "step": "1"})",
                           R"({"type": "progress", "step": 1, "loss": "low"})",
                           R"({"type": "progress", "step": 1, "epoch": -0.5})",
                           R"({"type": "progress", "step": 1, "total_steps": -3})"})
    EXPECT_FALSE(parse(text)) << text;
}

TEST(Messages, HelloNeedsProtocolAndRole) {
  const auto parse = [](const char* text) { return hello_from(*message_from(text)); };
  const auto hello = parse(
      R"({"type": "hello", "protocol": 1, "role": "trainer", "attempt": 2, "token": "t", "rank": 1, "world_size": 2})");
  ASSERT_TRUE(hello);
  EXPECT_EQ(hello->attempt, 2);
  EXPECT_EQ(hello->rank, 1);
  EXPECT_EQ(hello->world_size, 2);
  EXPECT_FALSE(parse(R"({"type": "hello", "role": "trainer"})"));
  EXPECT_FALSE(parse(R"({"type": "hello", "protocol": 1})"));
}

}  // namespace
}  // namespace bitctl
