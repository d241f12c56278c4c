#include "chat/graphemes.h"

#include <gmock/gmock.h>

namespace bitctl {
namespace {

TEST(Graphemes, Borders) {
  const std::string text = "ae\u0301漢👨‍👩‍👧🇯🇵🇩🇪\nx";
  std::vector<std::string> found;
  for (size_t at = 0; at < text.size();) {
    const size_t next = next_grapheme(text, at);
    found.push_back(text.substr(at, next - at));
    at = next;
  }
  EXPECT_THAT(found, testing::ElementsAre("a", "e\u0301", "漢", "👨‍👩‍👧", "🇯🇵", "🇩🇪", "\n", "x"));
  for (size_t at = text.size(); at > 0;) {
    const size_t before = previous_grapheme(text, at);
    EXPECT_EQ(text.substr(before, at - before), found.back());
    found.pop_back();
    at = before;
  }
  EXPECT_TRUE(found.empty());
}

TEST(Graphemes, Widths) {
  EXPECT_EQ(display_width("abc"), 3);
  EXPECT_EQ(display_width("漢字"), 4);
  EXPECT_EQ(display_width("e\u0301"), 1);
  EXPECT_EQ(display_width("👍"), 2);
  EXPECT_EQ(display_width("👨‍👩‍👧"), 2);
  EXPECT_EQ(display_width("🇯🇵"), 2);
  EXPECT_EQ(display_width("❤\ufe0f"), 2);
  EXPECT_EQ(display_width("\t"), 4);
  EXPECT_EQ(display_width("ｱ"), 1) << "half-width katakana";
}

TEST(Graphemes, WhatCouldSteerTheTerminalIsShown) {
  EXPECT_EQ(shown("a\u202eb"), "a⟦U+202E⟧b");
  EXPECT_EQ(display_width("a\u202eb"), 10);
  EXPECT_EQ(shown("\t"), "    ");
}

TEST(BreakRows, AtLineBreaksAndAtTheWidth) {
  using Rows = std::vector<TextRow>;
  EXPECT_EQ(break_rows("", 5), (Rows{{0, 0}}));
  EXPECT_EQ(break_rows("abcde", 5), (Rows{{0, 5}}));
  EXPECT_EQ(break_rows("abcdef", 5), (Rows{{0, 5}, {5, 6}}));
  EXPECT_EQ(break_rows("ab\n\ncd\n", 5), (Rows{{0, 2}, {3, 3}, {4, 6}, {7, 7}}));
  EXPECT_EQ(break_rows("漢字漢", 5), (Rows{{0, 6}, {6, 9}})) << "a wide character is never cut in two";
  EXPECT_EQ(break_rows("漢漢", 1), (Rows{{0, 3}, {3, 6}})) << "nor left out where no row is wide enough";
}

TEST(BreakRows, ACursorAtASoftBreakStandsInTheLowerRow) {
  const auto rows = break_rows("abcdef\ngh", 3);
  EXPECT_EQ(row_of(rows, 0), 0u);
  EXPECT_EQ(row_of(rows, 3), 1u);
  EXPECT_EQ(row_of(rows, 6), 1u);
  EXPECT_EQ(row_of(rows, 7), 2u);
  EXPECT_EQ(row_of(rows, 9), 2u);
}

}  // namespace
}  // namespace bitctl
