#include "chat/transcript.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "base/read_file.h"
#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

using testing::HasSubstr;

class TranscriptTest : public testing::Test {
 protected:
  TranscriptTest() { transcript_.keep_in(chats_); }
  static TurnRecord turn(const std::string& prompt, const std::string& answer) {
    return {.model = "tiny", .system = {}, .prompt = prompt, .answer = answer, .stop = "end_of_turn"};
  }
  static std::string bytes(const std::string& path) { return *read_small_file(path, 1 << 20); }

  TemporaryFolder folder_;
  const std::string chats_ = folder_ / "chats";
  Transcript transcript_;
};

const Conversation kOneTurn{"", {{"user", "hi\n\"you\""}, {"assistant", "漢字"}}};

TEST_F(TranscriptTest, IsWrittenWithTheFirstTurnAndReadBack) {
  EXPECT_EQ(transcript_.path(), "");
  EXPECT_FALSE(std::filesystem::exists(chats_));
  ASSERT_TRUE(transcript_.add(turn("hi\n\"you\"", "漢字")));
  EXPECT_EQ(*read_conversation_file(transcript_.path()), kOneTurn);
  struct stat st {};
  ASSERT_EQ(::stat(transcript_.path().c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  ASSERT_EQ(::stat(chats_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0700u);
}

TEST_F(TranscriptTest, RecordsAreFoldedInOrder) {
  ASSERT_TRUE(transcript_.add(turn("a", "b")));
  ASSERT_TRUE(transcript_.add(turn("c", "d")));
  ASSERT_TRUE(transcript_.undo(2));
  auto again = turn("a", "other");
  again.replaces = 2;
  again.system = "be brief";
  ASSERT_TRUE(transcript_.add(again));
  EXPECT_EQ(*read_conversation_file(transcript_.path()),
            (Conversation{"be brief", {{"user", "a"}, {"assistant", "other"}}}));
  EXPECT_THAT(bytes(transcript_.path()), HasSubstr("\"d\""))
      << "what was taken back is still there to be read";
}

TEST_F(TranscriptTest, GoesOnInItsFileAndNewOnesRepeatWhatWasLoaded) {
  ASSERT_TRUE(transcript_.add(turn("a", "b")));
  const std::string path = transcript_.path();
  Transcript other;
  EXPECT_EQ(other.take_up(path).error().kind, ErrorKind::locked);
  transcript_.begin();
  EXPECT_EQ(other.take_up(path)->messages.size(), 2u);
  ASSERT_TRUE(other.add(turn("c", "d")));
  EXPECT_EQ(read_conversation_file(path)->messages.size(), 4u);

  transcript_.begin(kOneTurn);
  ASSERT_TRUE(transcript_.add(turn("e", "f")));
  EXPECT_NE(transcript_.path(), path);
  EXPECT_EQ(read_conversation_file(transcript_.path())->messages.size(), 4u);
  EXPECT_EQ(*newest_transcript(chats_), transcript_.path());
}

TEST_F(TranscriptTest, ALineThatACrashCutShortIsCutOff) {
  ASSERT_TRUE(transcript_.add(turn("a", "b")));
  const std::string path = transcript_.path();
  transcript_.begin();
  const std::string whole = bytes(path);
  for (size_t size = whole.size(); size > 0; --size) {
    std::ofstream(path, std::ios::trunc) << whole.substr(0, size);
    Transcript other;
    const auto taken = other.take_up(path);
    ASSERT_TRUE(taken) << taken.error().message;
    ASSERT_TRUE(other.add(turn("c", "d")));
    ASSERT_EQ(read_conversation_file(path)->messages.size(), taken->messages.size() + 2) << size;
  }
}

TEST_F(TranscriptTest, WhatIsNoTranscriptIsNamed) {
  const auto refusal = [&](const std::string& records) {
    const auto read = read_conversation_file(folder_.write("file", records));
    return read ? std::string("read") : read.error().message;
  };
  EXPECT_THAT(refusal("a text"), HasSubstr("no conversation"));
  EXPECT_THAT(refusal("a text\n"), HasSubstr("line 1: "));
  EXPECT_THAT(refusal("{\"type\":\"chat\"}\n{}\n"), HasSubstr("line 2: no record"));
  EXPECT_THAT(refusal("{\"type\":\"message\",\"role\":\"tool\",\"content\":\"x\"}\n"),
              HasSubstr("a message of nobody"));
  EXPECT_THAT(refusal("{\"type\":\"undo\",\"messages\":1}\n"), HasSubstr("more than was said"));
  EXPECT_EQ(refusal("{\"type\":\"of a later version\"}\n"), "read");
  EXPECT_EQ(newest_transcript(folder_ / "nowhere").error().kind, ErrorKind::not_found);
}

}  // namespace
}  // namespace bitctl
