#include "chat/editor.h"

#include <gtest/gtest.h>

#include <random>

#include "base/visible_text.h"
#include "chat/graphemes.h"

namespace bitctl {
namespace {

constexpr int kWidth = 20;

Editor with(std::string text) {
  Editor editor;
  editor.set(std::move(text));
  return editor;
}

TEST(Editor, MovesAndRemovesByGraphemes) {
  for (const std::string grapheme : {"a", "漢", "e\u0301", "👨‍👩‍👧", "🇯🇵", "👍🏽", "한"}) {
    Editor editor = with("x" + grapheme + "y");
    editor.left();
    EXPECT_EQ(editor.cursor(), 1 + grapheme.size()) << grapheme;
    editor.left();
    EXPECT_EQ(editor.cursor(), 1u);
    editor.right();
    editor.backspace();
    EXPECT_EQ(editor.text(), "xy") << grapheme;
    editor.insert(grapheme);
    editor.left();
    editor.erase();
    EXPECT_EQ(editor.text(), "xy") << grapheme;
  }
}

TEST(Editor, TheEndsAreWalls) {
  Editor editor;
  editor.left();
  editor.right();
  editor.backspace();
  editor.erase();
  editor.kill_word();
  editor.kill_to_end();
  editor.word_left();
  editor.word_right();
  EXPECT_FALSE(editor.up(kWidth));
  EXPECT_FALSE(editor.down(kWidth));
  EXPECT_TRUE(editor.empty());
  EXPECT_EQ(editor.cursor(), 0u);
}

TEST(Editor, HomeAndEndAreOfTheLine) {
  Editor editor = with("one\ntwo\nthree");
  editor.up(kWidth);
  editor.home();
  EXPECT_EQ(editor.cursor(), 4u);
  editor.end();
  EXPECT_EQ(editor.cursor(), 7u);
  EXPECT_EQ(editor.line(), "two");
  editor.remove_line();
  EXPECT_EQ(editor.text(), "one\nthree");
}

TEST(Editor, UpAndDownKeepTheColumn) {
  Editor editor = with("long line\nab\nlonger line");
  EXPECT_EQ(editor.cursor(), 24u);
  EXPECT_TRUE(editor.up(kWidth));
  EXPECT_EQ(editor.cursor(), 12u) << "the end of the short line";
  EXPECT_TRUE(editor.up(kWidth));
  EXPECT_EQ(editor.cursor(), 9u);
  EXPECT_FALSE(editor.up(kWidth));
  editor.down(kWidth);
  editor.down(kWidth);
  EXPECT_EQ(editor.cursor(), 24u);
}

TEST(Editor, UpAndDownGoBySoftlyBrokenRowsAndWideCells) {
  Editor editor = with(
      "漢字漢字漢字漢字漢字"
      "漢字漢字");  // ten wide characters a row
  EXPECT_TRUE(editor.up(kWidth));
  EXPECT_EQ(editor.cursor(), 12u) << "four characters in, as below";
  EXPECT_TRUE(editor.down(kWidth));
  EXPECT_EQ(editor.cursor(), 42u);
  Editor full = with("0123456789012345678901234567890123456789");
  full.home();
  full.down(kWidth);
  EXPECT_EQ(full.cursor(), 20u);
}

TEST(Editor, Words) {
  Editor editor = with("one  two\n漢字 é");
  editor.word_left();
  editor.word_left();
  EXPECT_EQ(editor.cursor(), 9u);
  editor.word_left();
  EXPECT_EQ(editor.cursor(), 5u);
  editor.word_right();
  EXPECT_EQ(editor.cursor(), 8u);
  editor.kill_word();
  EXPECT_EQ(editor.text(), "one  \n漢字 é");
  editor.kill_word();
  EXPECT_EQ(editor.text(), "\n漢字 é");
}

TEST(Editor, Kills) {
  Editor editor = with("one\ntwo");
  editor.kill_to_start();
  EXPECT_EQ(editor.text(), "one\n");
  editor.left();
  editor.kill_to_end();
  EXPECT_EQ(editor.text(), "one") << "at the end of a line it takes the break";
  editor.home();
  editor.kill_to_end();
  EXPECT_EQ(editor.text(), "");
}

TEST(Editor, WhatJoinsAroundTheCursorTakesItAlong) {
  Editor editor = with("👨👩");
  editor.left();
  editor.insert("\u200d");  // a joiner makes one family of two people
  EXPECT_TRUE(editor.cursor() == 0 || editor.cursor() == editor.text().size());
  editor.set("e");
  editor.insert("\u0301");
  editor.left();
  EXPECT_EQ(editor.cursor(), 0u);
}

// Whatever is done, the text stays valid UTF-8 and the cursor stays on the border of a grapheme.
TEST(Editor, RandomEditingKeepsItsPromises) {
  const std::vector<std::string> pieces = {"a",      " ", "\n", "漢", "\u0301", "👨",
                                           "\u200d", "🇯", "🇵",  "\t", "word "};
  std::mt19937 random(7);
  Editor editor;
  for (int i = 0; i < 20'000; ++i) {
    switch (random() % 16) {
      case 0:
        editor.backspace();
        break;
      case 1:
        editor.erase();
        break;
      case 2:
        editor.left();
        break;
      case 3:
        editor.right();
        break;
      case 4:
        editor.up(kWidth);
        break;
      case 5:
        editor.down(kWidth);
        break;
      case 6:
        editor.home();
        break;
      case 7:
        editor.end();
        break;
      case 8:
        editor.word_left();
        break;
      case 9:
        editor.word_right();
        break;
      case 10:
        if (random() % 8 == 0) editor.kill_word();
        break;
      case 11:
        if (random() % 16 == 0) editor.kill_to_end();
        break;
      default:
        editor.insert(pieces[random() % pieces.size()]);
    }
    if (editor.text().size() > 200) editor.set("");
    ASSERT_EQ(valid_utf8(editor.text()), editor.text());
    size_t at = 0;
    while (at < editor.cursor()) at = next_grapheme(editor.text(), at);
    ASSERT_EQ(at, editor.cursor()) << testing::PrintToString(editor.text());
  }
}

}  // namespace
}  // namespace bitctl
