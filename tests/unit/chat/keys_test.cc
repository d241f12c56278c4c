#include "chat/keys.h"

#include <gmock/gmock.h>

namespace bitctl {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

Key typed(std::string text) { return {.kind = KeyKind::text, .text = std::move(text)}; }
Key pasted(std::string text) { return {.kind = KeyKind::paste, .text = std::move(text)}; }

std::vector<KeyKind> kinds(const std::vector<Key>& keys) {
  std::vector<KeyKind> all;
  for (const Key& key : keys) all.push_back(key.kind);
  return all;
}

// Every way of cutting the bytes in two gives what the whole gives (texts may come in two parts).
std::vector<Key> parse_split_everywhere(const std::string& bytes) {
  const auto joined = [](std::vector<Key> keys) {
    std::vector<Key> all;
    for (Key& key : keys) {
      if (key.kind == KeyKind::text && !all.empty() && all.back().kind == KeyKind::text)
        all.back().text += key.text;
      else
        all.push_back(std::move(key));
    }
    return all;
  };
  KeyParser whole;
  const auto expected = joined(whole.feed(bytes));
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    KeyParser parser;
    auto keys = parser.feed(bytes.substr(0, cut));
    for (Key& key : parser.feed(bytes.substr(cut))) keys.push_back(std::move(key));
    EXPECT_EQ(joined(keys), expected) << "cut at " << cut << " of " << testing::PrintToString(bytes);
  }
  KeyParser by_bytes;
  std::vector<Key> keys;
  for (const char byte : bytes)
    for (Key& key : by_bytes.feed({&byte, 1})) keys.push_back(std::move(key));
  EXPECT_EQ(joined(keys), expected);
  return expected;
}

struct Encoding {
  std::string bytes;
  KeyKind kind;
};

class Encodings : public testing::TestWithParam<Encoding> {};

TEST_P(Encodings, ReadWherverTheyAreSplit) {
  const auto keys = parse_split_everywhere("a" + GetParam().bytes + "b");
  ASSERT_EQ(keys.size(), 3u) << testing::PrintToString(GetParam().bytes);
  EXPECT_EQ(keys[0], typed("a"));
  EXPECT_EQ(keys[1].kind, GetParam().kind) << testing::PrintToString(GetParam().bytes);
  EXPECT_EQ(keys[2], typed("b"));
}

INSTANTIATE_TEST_SUITE_P(
    Newline, Encodings,
    testing::Values(Encoding{"\r", KeyKind::newline}, Encoding{"\x1b[13u", KeyKind::newline},
                    Encoding{"\x1b[13;1u", KeyKind::newline}, Encoding{"\x1b[13;0u", KeyKind::newline},
                    Encoding{"\x1b[13;2u", KeyKind::newline}, Encoding{"\x1b[27;2;13~", KeyKind::newline},
                    Encoding{"\x1b[13;65u", KeyKind::newline},
                    Encoding{"\x1b[13;130u", KeyKind::newline},  // Shift and NumLock
                    Encoding{"\x1b[57414u", KeyKind::newline}, Encoding{"\x1bOM", KeyKind::newline},
                    Encoding{"\x1b[109;5u", KeyKind::newline}));

INSTANTIATE_TEST_SUITE_P(
    Send, Encodings,
    testing::Values(Encoding{"\n", KeyKind::send}, Encoding{"\x1b[13;5u", KeyKind::send},
                    Encoding{"\x1b[27;5;13~", KeyKind::send}, Encoding{"\x1b[13;5:1u", KeyKind::send},
                    Encoding{"\x1b[13;69u", KeyKind::send},   // CapsLock
                    Encoding{"\x1b[13;133u", KeyKind::send},  // NumLock
                    Encoding{"\x1b[13;197u", KeyKind::send},  // both
                    Encoding{"\x1b[27;69;13~", KeyKind::send}, Encoding{"\x1b[13;6u", KeyKind::send},
                    Encoding{"\x1b[13:13;5u", KeyKind::send}, Encoding{"\x1b[57414;5u", KeyKind::send},
                    Encoding{"\x1b[13;9u", KeyKind::send},  // Cmd on a Mac's keyboard
                    Encoding{"\x1b\r", KeyKind::send}, Encoding{"\x1b\n", KeyKind::send},
                    Encoding{"\x1b[13;3u", KeyKind::send}, Encoding{"\x1b[27;3;13~", KeyKind::send},
                    Encoding{"\x1b[106;5u", KeyKind::send}, Encoding{"\x1b[27;5;106~", KeyKind::send}));

INSTANTIATE_TEST_SUITE_P(
    Others, Encodings,
    testing::Values(Encoding{"\x04", KeyKind::end_of_input}, Encoding{"\x1b[100;5u", KeyKind::end_of_input},
                    Encoding{"\x03", KeyKind::interrupt}, Encoding{"\x1b[99;5u", KeyKind::interrupt},
                    Encoding{"\x1b[99;69u", KeyKind::interrupt},
                    Encoding{"\x1b[27;5;99~", KeyKind::interrupt}, Encoding{"\x1a", KeyKind::suspend},
                    Encoding{"\x1b[122;5u", KeyKind::suspend}, Encoding{"\x1b[A", KeyKind::up},
                    Encoding{"\x1b[B", KeyKind::down}, Encoding{"\x1b[C", KeyKind::right},
                    Encoding{"\x1b[D", KeyKind::left}, Encoding{"\x1bOA", KeyKind::up},
                    Encoding{"\x1bOD", KeyKind::left}, Encoding{"\x1b[57417u", KeyKind::left},
                    Encoding{"\x1b[1;5C", KeyKind::word_right}, Encoding{"\x1b[1;3D", KeyKind::word_left},
                    Encoding{"\x1b[1;129D", KeyKind::left},
                    Encoding{"\x1b"
                             "b",
                             KeyKind::word_left},
                    Encoding{"\x1b[98;3u", KeyKind::word_left}, Encoding{"\x1b[H", KeyKind::home},
                    Encoding{"\x1b[1~", KeyKind::home}, Encoding{"\x1b[4~", KeyKind::end},
                    Encoding{"\x1bOF", KeyKind::end}, Encoding{"\x1b[3~", KeyKind::erase},
                    Encoding{"\x7f", KeyKind::backspace}, Encoding{"\x08", KeyKind::backspace},
                    Encoding{"\x1b[127u", KeyKind::backspace}, Encoding{"\x1b\x7f", KeyKind::kill_word},
                    Encoding{"\x1b[127;5u", KeyKind::kill_word}, Encoding{"\x17", KeyKind::kill_word},
                    Encoding{"\x15", KeyKind::kill_to_start}, Encoding{"\x0b", KeyKind::kill_to_end},
                    Encoding{"\x0c", KeyKind::redraw}, Encoding{"\x1b[?1u", KeyKind::kitty_flags},
                    Encoding{"\x1b[?62;22c", KeyKind::device_attributes}));

TEST(Keys, AnExtendedEncodingProvesThatTheTerminalTellsKeysApart) {
  EXPECT_TRUE(KeyParser().feed("\x1b[13;5u")[0].extended);
  EXPECT_TRUE(KeyParser().feed("\x1b[27;5;13~")[0].extended);
  EXPECT_FALSE(KeyParser().feed("\n")[0].extended);
  EXPECT_FALSE(KeyParser().feed("\x1b\r")[0].extended);
  EXPECT_EQ(KeyParser().feed("\x1b[?3u")[0].flags, 3);
}

TEST(Keys, AReleaseIsNoKeyAndARepeatNeverSends) {
  EXPECT_THAT(KeyParser().feed("\x1b[13;5:3u\x1b[97;1:3u\x1b[1;1:3A"), IsEmpty());
  EXPECT_THAT(KeyParser().feed("\x1b[13;5:2u"), IsEmpty());
  EXPECT_THAT(kinds(KeyParser().feed("\x1b[13;1:2u")), ElementsAre(KeyKind::newline));
}

TEST(Keys, WhatIsNotKnownIsSwallowedWhole) {
  for (const std::string unknown : {"\x1b[99;99~",
                                    "\x1b[<0;10;20M",
                                    "\x1b[I",
                                    "\x1b[200;300;400x",
                                    "\x1b[1$y",
                                    "\x1b[?2026;2$y",
                                    "\x1bOP",
                                    "\x1bO5P",
                                    "\x1b[[A",
                                    "\x1b[15~",
                                    "\x1b[57358u",
                                    "\x1b[57441;2u",
                                    "\x1bq",
                                    "\x1b[>1;10;0c",
                                    "\x1b[3;1R",
                                    "\x1b]11;rgb:1e1e/1e1e/1e1e\x07",
                                    "\x1b]52;c;Y29tbWFuZA==\x1b\\",
                                    "\x1bP>|XTerm(379)\x1b\\",
                                    "\x1b_Gi=31;OK\x1b\\",
                                    "\x1b^private\x1b\\",
                                    "\x1bXstring\x1b\\"}) {
    EXPECT_THAT(parse_split_everywhere("a" + unknown + "b"), ElementsAre(typed("ab")))
        << testing::PrintToString(unknown);
  }
}

TEST(Keys, AVeryLongSequenceIsSwallowedToo) {
  EXPECT_THAT(KeyParser().feed("\x1b[" + std::string(100000, '1') + "ub"), ElementsAre(typed("b")));
  EXPECT_THAT(KeyParser().feed("\x1b]52;" + std::string(100000, 'x') +
                               "\x07"
                               "b"),
              ElementsAre(typed("b")));
}

TEST(Keys, ABrokenSequenceGivesItsOtherBytesBack) {
  EXPECT_THAT(kinds(parse_split_everywhere("\x1b[1\r")), ElementsAre(KeyKind::newline));
  EXPECT_THAT(parse_split_everywhere("\x1b[1あ"), ElementsAre(typed("あ")));
  EXPECT_THAT(kinds(parse_split_everywhere("\x1b[1\x1b[A")), ElementsAre(KeyKind::up));
  // Ctrl+C and Ctrl+D get out of everything.
  EXPECT_THAT(kinds(parse_split_everywhere("\x1b]52;\x03")), ElementsAre(KeyKind::interrupt));
  EXPECT_THAT(kinds(parse_split_everywhere("\x1bP\x04")), ElementsAre(KeyKind::end_of_input));
}

TEST(Keys, TextIsKeptAcrossReads) {
  EXPECT_THAT(parse_split_everywhere("naïve 日本語 👨‍👩‍👧 é"),
              ElementsAre(typed("naïve 日本語 👨‍👩‍👧 é")));
  EXPECT_THAT(parse_split_everywhere("a\xff\xc3(\xe3\x81"
                                     "b"),
              ElementsAre(typed("a\uFFFD\uFFFD(\uFFFDb")));
  EXPECT_THAT(parse_split_everywhere("a\xc2\x9b"
                                     "b"),
              ElementsAre(typed("ab")))
      << "C1 controls are no text";
  EXPECT_THAT(parse_split_everywhere("\xe3\x81\x1b[A"),
              ElementsAre(typed("\uFFFD"), Key{.kind = KeyKind::up}));
  EXPECT_THAT(parse_split_everywhere("\x1b[27;66;65~\x1b[9;129u\x1b[97;193u"), ElementsAre(typed("A\ta")))
      << "the locks are no modifiers";
  EXPECT_THAT(parse_split_everywhere("\x1b[27;2;65~\x1b[233;1u\x1b[97;1;230u"), ElementsAre(typed("Aéæ")));
}

TEST(Keys, APasteIsOneKeyWithItsLineBreaks) {
  EXPECT_THAT(parse_split_everywhere("\x1b[200~a\r\nb\rc\nd\te\x1b[31m\x03\x7f\x1b[201~x"),
              ElementsAre(pasted("a\nb\nc\nd\te[31m"), typed("x")));
  EXPECT_THAT(parse_split_everywhere("\x1b[200~日\xff\xc2\x9b!\x1b[201~"), ElementsAre(pasted("日\uFFFD!")));
  EXPECT_THAT(parse_split_everywhere("\x1b[200~\x1b[201~"), IsEmpty());
  EXPECT_THAT(parse_split_everywhere("\x1b[200~\x1b[201\x1b[201~"), ElementsAre(pasted("[201")));
}

TEST(Keys, ALoneEscapeIsForgottenAfterSilence) {
  for (const std::string alone :
       {"\x1b", "\x1b[", "\x1bO", "\x1b]", "\x1bP", "\x1b_", "\x1b^", "\x1bX", "\x1b]52;c\x1b"}) {
    KeyParser parser;
    EXPECT_THAT(parser.feed(alone), IsEmpty());
    EXPECT_EQ(parser.settles_after(), std::chrono::milliseconds(100));
    EXPECT_THAT(parser.settle(), IsEmpty());
    EXPECT_FALSE(parser.settles_after());
    EXPECT_THAT(kinds(parser.feed("\rA")), ElementsAre(KeyKind::newline, KeyKind::text))
        << testing::PrintToString(alone);
  }
}

TEST(Keys, APasteWithoutAnEndIsGivenAfterSilence) {
  KeyParser parser;
  EXPECT_THAT(parser.feed("\x1b[200~half a\rpaste\x03\x04"), IsEmpty());
  EXPECT_EQ(parser.settles_after(), std::chrono::seconds(1));
  EXPECT_THAT(parser.settle(), ElementsAre(pasted("half a\npaste")));
  EXPECT_FALSE(parser.settles_after());
  EXPECT_THAT(kinds(parser.feed("\x03\x04")), ElementsAre(KeyKind::interrupt, KeyKind::end_of_input));
  EXPECT_THAT(parser.feed("\x1b[201~"), IsEmpty()) << "its end, if it comes at last";
}

TEST(Keys, SilenceInsideASequenceChangesNothing) {
  for (const std::string begun : {"\x1b[1", "\x1b]52;c", "\x1bP>", "\xe3\x81"}) {
    KeyParser parser;
    parser.feed(begun);
    EXPECT_FALSE(parser.settles_after()) << testing::PrintToString(begun);
  }
  KeyParser parser;
  parser.feed("\x1b[13;");
  parser.settle();
  EXPECT_THAT(kinds(parser.feed("5u")), ElementsAre(KeyKind::send));
}

}  // namespace
}  // namespace bitctl
