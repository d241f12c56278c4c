#include "chat/screen.h"

#include <gmock/gmock.h>

#include <random>

#include "unit/chat/mini_terminal.h"

namespace bitctl {
namespace {

using testing::ElementsAre;

constexpr size_t kWidth = 20, kHeight = 8;

class OnTerminal : public testing::Test {
 protected:
  void show(std::string_view text, size_t cursor) {
    terminal.write(screen.draw(prompt_frame(text, cursor, {kWidth, kHeight, "Ctrl+J"})));
  }
  void show(std::string_view text) { show(text, text.size()); }
  void print(std::string_view text) { terminal.write(screen.print(text)); }
  void print_line(std::string_view line) { terminal.write(screen.print_line(line)); }

  MiniTerminal terminal{kWidth, kHeight};
  Screen screen{kWidth};
};

TEST(PromptFrame, TheHintStandsInAnEmptyPrompt) {
  const PromptFrame frame = prompt_frame("", 0, {80, 24, "Ctrl+Enter"});
  EXPECT_THAT(frame.rows, ElementsAre("> \x1b[2mType a message... (Ctrl+Enter to send)\x1b[22m"));
  EXPECT_EQ(frame.before_cursor, "> ");
}

TEST(PromptFrame, ATextOfSeveralLinesSaysHowItIsSent) {
  const PromptFrame frame = prompt_frame("a\nb", 1, {80, 24, "Alt+Enter or Ctrl+J"});
  EXPECT_THAT(frame.rows, ElementsAre("> a", "  b", "  \x1b[2m(Alt+Enter or Ctrl+J to send)\x1b[22m"));
  EXPECT_EQ(frame.cursor_row, 0u);
  EXPECT_EQ(frame.before_cursor, "> a");
}

TEST(PromptFrame, ALongTextShowsTheRowsAroundItsCursor) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += std::to_string(i) + "\n";
  for (const size_t cursor : {size_t{0}, text.size() / 2, text.size()}) {
    const PromptFrame frame = prompt_frame(text, cursor, {80, 10, "Ctrl+J"});
    EXPECT_EQ(frame.rows.size(), 9u) << "one row of the terminal is left to what stands above";
    ASSERT_LT(frame.cursor_row, frame.rows.size() - 1);
    EXPECT_TRUE(frame.rows[frame.cursor_row].starts_with(frame.before_cursor));
  }
}

TEST(PromptFrame, FitsAnyTerminal) {
  for (int width = 1; width < 12; ++width)
    for (int height = 1; height < 6; ++height) {
      const PromptFrame frame = prompt_frame("漢字 text\nand more", 5, {width, height, "Ctrl+J"});
      EXPECT_LE(frame.rows.size(), static_cast<size_t>(std::max(height - 1, 1)));
      EXPECT_LT(frame.cursor_row, frame.rows.size());
    }
}

TEST(PromptFrame, SaysNoColorPlainly) {
  const PromptFrame frame = prompt_frame("", 0, {80, 24, "Ctrl+Enter", "", false});
  EXPECT_THAT(frame.rows, ElementsAre("> Type a message... (Ctrl+Enter to send)"));
}

TEST(PromptFrame, NoTerminalIsTooNarrow) {
  for (int width = 1; width < 8; ++width) {
    MiniTerminal terminal(static_cast<size_t>(width), 16);
    Screen screen(width);
    const std::string texts[] = {"", "a", "ab", "abc\nd", width > 1 ? "漢字漢" : "x", "line\nmore"};
    for (const std::string& text : texts)
      for (size_t cursor = 0; cursor <= text.size(); cursor = next_grapheme(text + "\n", cursor)) {
        const PromptFrame frame = prompt_frame(text, cursor, {width, 16, "Ctrl+J"});
        terminal.write(screen.draw(frame));
      }
    terminal.write(screen.print_line("ok"));
    terminal.write(screen.take_prompt_away());
    std::string rows;
    for (const auto& row : terminal.rows()) rows += row;
    EXPECT_EQ(rows, "ok") << "nothing of the prompt is left at a width of " << width;
  }
}

TEST_F(OnTerminal, TypingShowsTextAndCursor) {
  show("");
  show("hi");
  EXPECT_THAT(terminal.rows(), ElementsAre("> hi"));
  EXPECT_EQ(terminal.cursor_column(), 4u);
  show("hi 漢字", 6);
  EXPECT_EQ(terminal.cursor_column(), 7u);
  EXPECT_EQ(terminal.cursor_row(), 0u);
}

TEST_F(OnTerminal, OnlyRowsThatDifferAreWrittenAgain) {
  show("first line\nsecond line\nthird");
  const size_t before = terminal.bytes_put();
  show("first line\nsecond line\nthirds");
  EXPECT_LE(terminal.bytes_put() - before, 2 * std::string("  thirds").size());
  EXPECT_EQ(screen.draw(prompt_frame("first line\nsecond line\nthirds", 29, {kWidth, kHeight, "Ctrl+J"})),
            "");
}

TEST_F(OnTerminal, LinesComeAboveThePromptWithoutTouchingIt) {
  show("typing", 3);
  print_line("Loading tiny...");
  EXPECT_THAT(terminal.rows(), ElementsAre("Loading tiny...", "> typing"));
  EXPECT_EQ(terminal.cursor_row(), 1u);
  EXPECT_EQ(terminal.cursor_column(), 5u);
}

TEST_F(OnTerminal, AnAnswerGrowsPieceByPieceAcrossRows) {
  show("typed\nmeanwhile", 2);
  for (const char c : std::string("An answer that is longer than a row.\nAnd more")) print({&c, 1});
  EXPECT_THAT(terminal.rows(), ElementsAre("An answer that is lo", "nger than a row.", "And more", "> typed",
                                           "  meanwhile", "  (Ctrl+J to send)"));
  EXPECT_EQ(terminal.cursor_row(), 3u);
  EXPECT_EQ(terminal.cursor_column(), 4u);
}

TEST_F(OnTerminal, ALineEndsAnUnfinishedOneFirst) {
  show("");
  print("unfinished");
  print_line("a line");
  print("again");
  terminal.write(screen.end_line());
  EXPECT_EQ(screen.end_line(), "");
  EXPECT_THAT(terminal.rows(), ElementsAre("unfinished", "a line", "again", testing::StartsWith("> ")));
}

TEST_F(OnTerminal, ARowThatIsExactlyFull) {
  show("x");
  print(std::string(kWidth, 'a'));
  print("b");
  EXPECT_THAT(terminal.rows(), ElementsAre(std::string(kWidth, 'a'), "b", "> x"));
}

TEST_F(OnTerminal, AResizeDrawsThePromptAnew) {
  show("0123456789");
  print("half a line");
  terminal.write(screen.resize(kWidth));
  show("0123456789");
  print("next");
  EXPECT_THAT(terminal.rows(), ElementsAre("half a line", "next", "> 0123456789"));
}

TEST_F(OnTerminal, TheRestOfTheScreenIsLeftWhenThePromptIsTakenAway) {
  show("a\nb\nc");
  print_line("said");
  terminal.write(screen.take_prompt_away());
  EXPECT_THAT(terminal.rows(), ElementsAre("said"));
  EXPECT_EQ(terminal.cursor_row(), 1u);
}

// Text of any shape in pieces of any size, with typing in between, ends as if it had been printed at once.
TEST_F(OnTerminal, RandomPiecesNeverCorruptWhatStandsThere) {
  const std::vector<std::string> pieces = {"a",  "word ", "\n", "漢字", "👍", "a longer piece of text",
                                           "\t", "é"};
  std::mt19937 random(11);
  for (int round = 0; round < 300; ++round) {
    MiniTerminal shown{kWidth, kHeight}, expected{kWidth, kHeight};
    Screen pieced{kWidth}, whole{kWidth};
    std::string all, typed;
    for (int i = 0; i < 12; ++i) {
      const std::string piece = pieces[random() % pieces.size()];
      typed += random() % 3 == 0 ? "\n" : "k";
      shown.write(pieced.print(piece));
      shown.write(
          pieced.draw(prompt_frame(typed, random() % 2 ? typed.size() : 0, {kWidth, kHeight, "Ctrl+J"})));
      all += piece;
    }
    expected.write(whole.print(all));
    expected.write(whole.draw(prompt_frame(typed, typed.size(), {kWidth, kHeight, "Ctrl+J"})));
    shown.write(pieced.draw(prompt_frame(typed, typed.size(), {kWidth, kHeight, "Ctrl+J"})));
    ASSERT_EQ(shown.rows(), expected.rows()) << testing::PrintToString(all);
  }
}

}  // namespace
}  // namespace bitctl
