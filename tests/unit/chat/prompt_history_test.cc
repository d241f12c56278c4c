#include "chat/prompt_history.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <fstream>
#include <thread>

#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

TEST(PromptHistory, IsKeptInOrderAndOverSeveralLines) {
  const TemporaryFolder folder;
  const std::string path = folder / "state/history.jsonl";
  EXPECT_THAT(PromptHistory(path).read(), IsEmpty());
  ASSERT_TRUE(PromptHistory(path).add("one"));
  ASSERT_TRUE(PromptHistory(path).add("two\nlines, 漢字 \"quoted\" \\"));
  EXPECT_THAT(PromptHistory(path).read(), ElementsAre("one", "two\nlines, 漢字 \"quoted\" \\"));
  struct stat st {};
  ASSERT_EQ(::stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
}

TEST(PromptHistory, LinesThatAreNoneAreLeftOut) {
  const TemporaryFolder folder;
  const std::string path =
      folder.write("history", "{\"prompt\":\"a\"}\nno json\n[1]\n{\"prompt\":\"b\"}\n{\"pro");
  EXPECT_THAT(PromptHistory(path).read(), ElementsAre("a", "b"));
  EXPECT_TRUE(PromptHistory("").add("x"));
  EXPECT_THAT(PromptHistory("").read(), IsEmpty());
}

TEST(PromptHistory, ManyChatsWriteAtOnce) {
  const TemporaryFolder folder;
  const std::string path = folder / "history";
  const std::string large(20'000, 'x');
  std::vector<std::thread> chats;
  for (int i = 0; i < 4; ++i)
    chats.emplace_back([&] {
      for (int k = 0; k < 25; ++k) EXPECT_TRUE(PromptHistory(path).add(large));
    });
  for (auto& chat : chats) chat.join();
  EXPECT_THAT(PromptHistory(path).read(), testing::AllOf(SizeIs(100), testing::Each(large)));
}

TEST(PromptHistory, ALargeOneIsMadeShort) {
  const TemporaryFolder folder;
  const std::string path = folder / "history";
  const std::string line = "{\"prompt\":\"" + std::string(5'000, 'x') + "\"}\n";
  {
    std::ofstream file(path);
    for (size_t bytes = 0; bytes <= PromptHistory::kLargeBytes; bytes += line.size()) file << line;
    file << "{\"prompt\":\"the last\"}\n";
  }
  for (int i = 0; i < 300; ++i) ASSERT_TRUE(PromptHistory(path).add("more"));
  const auto before = PromptHistory(path).read();
  struct stat st {};
  ASSERT_EQ(::stat(path.c_str(), &st), 0);
  EXPECT_LE(static_cast<size_t>(st.st_size), PromptHistory::kLargeBytes);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  EXPECT_EQ(PromptHistory(path).read(), before);
  EXPECT_THAT(before, testing::Contains("the last"));
}

}  // namespace
}  // namespace bitctl
