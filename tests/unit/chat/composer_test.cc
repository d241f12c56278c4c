#include "chat/composer.h"

#include <gmock/gmock.h>

#include <random>

namespace bitctl {
namespace {

using Kind = Intention::Kind;
constexpr int kWidth = 40;

// Plays bytes to parser and composer; the intentions other than none.
class Player {
 public:
  explicit Player(bool enter_sends = false) : composer_(enter_sends) {}
  std::vector<Intention> play(std::string_view bytes) {
    std::vector<Intention> all;
    for (Key key : parser_.feed(bytes)) {
      const Intention intention = composer_.apply(key, kWidth);
      if (intention.kind != Kind::none) all.push_back(intention);
    }
    return all;
  }
  void silence() { parser_.settle(); }
  const Editor& editor() const { return composer_.editor(); }
  Composer& composer() { return composer_; }

 private:
  KeyParser parser_;
  Composer composer_;
};

Intention sends(std::string text) { return {Kind::send, std::move(text)}; }

TEST(Composer, EnterBreaksTheLineAndTheOtherKeysSend) {
  for (const std::string key : {"\n", "\x1b\r", "\x1b[13;5u", "\x1b[27;5;13~", "\x04"}) {
    Player player;
    EXPECT_THAT(player.play("hello\rworld" + key), testing::ElementsAre(sends("hello\nworld")));
    EXPECT_TRUE(player.editor().empty());
  }
}

TEST(Composer, ALineThatIsJustSendSends) {
  EXPECT_THAT(Player().play("hello\r/send\r"), testing::ElementsAre(sends("hello")));
  EXPECT_THAT(Player().play("one\rtwo\r/send\r"), testing::ElementsAre(sends("one\ntwo")));
  EXPECT_THAT(Player().play("hello /send\r"), testing::IsEmpty());
  EXPECT_THAT(Player().play("/send now\r"), testing::IsEmpty());
  Player player;
  EXPECT_THAT(player.play("/send\r"), testing::IsEmpty()) << "there is nothing to send";
  EXPECT_TRUE(player.editor().empty());
}

TEST(Composer, WhatIsSentIsTrimmedAndNeverEmpty) {
  EXPECT_THAT(Player().play("\r\r  a  b \r\r\n"), testing::ElementsAre(sends("a  b")));
  EXPECT_THAT(Player().play(" \r \n\n\n"), testing::IsEmpty());
}

TEST(Composer, EndOfInputLeavesWhereThereIsNothingToSend) {
  EXPECT_THAT(Player().play("\x04"), testing::ElementsAre(Intention{Kind::leave}));
  EXPECT_THAT(Player().play(" \r\x04"), testing::ElementsAre(Intention{Kind::leave}));
}

TEST(Composer, HistoryComesBackAndTheDraftWithIt) {
  Player player;
  player.play("first\n");
  player.play("two\rlines\n");
  player.play("draft");
  player.play("\x1b[A");
  EXPECT_EQ(player.editor().text(), "two\nlines");
  player.play("\x1b[A");
  EXPECT_EQ(player.editor().text(), "two\nlines") << "up moves inside a text of several lines first";
  player.play("\x1b[A");
  EXPECT_EQ(player.editor().text(), "first");
  player.play("\x1b[A");
  EXPECT_EQ(player.editor().text(), "first");
  player.play("\x1b[B");
  EXPECT_EQ(player.editor().text(), "two\nlines");
  player.play("\x1b[B");
  EXPECT_EQ(player.editor().text(), "draft");
}

// Streams as input methods, pastes and hasty fingers make them: committed text, CR before, behind and in the
// middle of it, cut at any byte, Esc keys with silence behind them. None of them holds a key that sends.
std::vector<std::string> random_stream(std::mt19937& random) {
  static const std::vector<std::string> kPieces = {"あいう",
                                                   "漢字",
                                                   "한",
                                                   "é",
                                                   "👨‍👩‍👧",
                                                   "\r",
                                                   "\r\r",
                                                   "\r\n" + std::string(),
                                                   "abc ",
                                                   "\t",
                                                   "\x7f",
                                                   "\x1b[A",
                                                   "\x1b[D",
                                                   "\x1b[1;5C",
                                                   "\x1b[200~pasted\rtext\n\x1b[201~",
                                                   "\x1b[200~\x1b[13;5u\x1b[201~",
                                                   "\x1b[13;2u",
                                                   "\x1b[27;2;13~",
                                                   "\x1b[13u",
                                                   "\x1b[13;65u",
                                                   "\x1b[13;129u",
                                                   "\x1b[I",
                                                   "\x1b]11;rgb:0/0/0\x1b\\",
                                                   "\xe3\x81",
                                                   "\x1bOB",
                                                   "\x1b[?1u",
                                                   "\x1b[?62c",
                                                   "\x1b"};
  std::vector<std::string> reads;
  std::string bytes;
  const auto flush = [&] {
    while (!bytes.empty()) {
      const size_t size = 1 + random() % bytes.size();
      reads.push_back(bytes.substr(0, size));
      bytes.erase(0, size);
    }
  };
  for (size_t n = 1 + random() % 8; n > 0; --n) {
    const std::string& piece = kPieces[random() % kPieces.size()];
    if (piece == "\r\n") {  // only inside a paste: outside of it LF is Ctrl+J
      bytes += "\x1b[200~\r\n\x1b[201~";
    } else if (piece == "\x1b") {  // the Esc key: silence follows
      flush();
      reads.push_back(piece);
      reads.emplace_back();
    } else {
      bytes += piece;
    }
  }
  flush();
  return reads;
}

// How many of the streams send. `twist` may make the composer a bad one.
template <typename Twist>
size_t sends_in_fuzz(size_t streams, Twist twist) {
  std::mt19937 random(20261121);
  size_t sent = 0;
  for (size_t i = 0; i < streams; ++i) {
    KeyParser parser;
    Composer composer;
    for (const std::string& bytes : random_stream(random)) {
      if (bytes.empty()) parser.settle();
      for (Key key : parser.feed(bytes)) {
        twist(key);
        if (composer.apply(key, kWidth).kind == Kind::send) ++sent;
      }
    }
  }
  return sent;
}

TEST(Composer, PromptsFromBeforeStandBehindThoseSentHere) {
  Player player;
  player.play("here\nhalf");
  player.composer().remember({"old", "older\nthan here"});
  player.play("\x1b[A");
  EXPECT_EQ(player.editor().text(), "here");
  player.play("\x1b[A");
  EXPECT_EQ(player.editor().text(), "older\nthan here");
  player.play("\x1b[A\x1b[A");
  EXPECT_EQ(player.editor().text(), "old");
  player.play("\x1b[B\x1b[B\x1b[B\x1b[B\x1b[B");
  EXPECT_EQ(player.editor().text(), "half");
}

TEST(Composer, CtrlRSearchesTheHistoryAndNothingInItSends) {
  Player player;
  player.composer().remember({"first apple", "a pear", "second apple", "a plum"});
  EXPECT_THAT(player.play("draft\x12"), testing::IsEmpty());
  EXPECT_EQ(player.editor().text(), "draft");
  player.play("appl");
  EXPECT_EQ(player.editor().text(), "second apple");
  EXPECT_THAT(player.composer().search_hint(), testing::HasSubstr("prompts with \"appl\""));
  player.play("\x12");
  EXPECT_EQ(player.editor().text(), "first apple");
  player.play("\x12");
  EXPECT_EQ(player.editor().text(), "first apple");
  EXPECT_THAT(player.composer().search_hint(), testing::HasSubstr("no older prompt with"));
  player.play("\x7f\x7f\x7f\x7fpea");
  EXPECT_EQ(player.editor().text(), "a pear");
  EXPECT_THAT(player.play("\r"), testing::IsEmpty());
  EXPECT_EQ(player.editor().text(), "a pear") << "Enter takes it, and is no line break";
  EXPECT_EQ(player.composer().search_hint(), "");
  player.play("\x1b[A");
  EXPECT_EQ(player.editor().text(), "first apple") << "Up goes on from there";
  player.play("\x12plum\x03");
  EXPECT_EQ(player.editor().text(), "first apple") << "Ctrl+C gives back what stood there";
  EXPECT_THAT(player.play("\x12plum\n"), testing::ElementsAre(sends("a plum")));
}

TEST(Composer, SubmitEnterSwapsTheKeys) {
  Player player(true);
  EXPECT_THAT(player.play("one\ntwo\x1b\rthree\x1b[13;5ufour\x1b[13;2ufive\r"),
              testing::ElementsAre(sends("one\ntwo\nthree\nfour\nfive")));
  EXPECT_THAT(player.play("six\x04"), testing::ElementsAre(sends("six")));
  EXPECT_THAT(player.play("\x1b[200~a\rb\r\x1b[201~"), testing::IsEmpty()) << "a paste never sends";
}

TEST(Composer, CtrlGAsksForTheEditor) {
  EXPECT_THAT(Player().play("x\x07"), testing::ElementsAre(Intention{Kind::edit_externally}));
}

TEST(Composer, NoStreamOfInputMethodsAndPastesEverSends) {
  EXPECT_EQ(sends_in_fuzz(100'000, [](Key&) {}), 0u);
}

TEST(Composer, TheFuzzCatchesAComposerThatSendsOnEnter) {
  const auto sends_on_enter = [](Key& key) {
    if (key.kind == KeyKind::newline) key.kind = KeyKind::send;
  };
  EXPECT_GT(sends_in_fuzz(1'000, sends_on_enter), 100u);
  const auto types_pastes = [](Key& key) {  // a paste taken for keys: its last line break would send
    if (key.kind == KeyKind::paste && key.text.back() == '\n') key.kind = KeyKind::send;
  };
  EXPECT_GT(sends_in_fuzz(1'000, types_pastes), 10u);
}

TEST(Composer, AMebibyteOfPasteIsNoSend) {
  Player player;
  std::string text;
  while (text.size() < (1u << 20)) text += "a line of a large paste, 漢字 and all\r\n";
  EXPECT_THAT(player.play("\x1b[200~" + text + "\x1b[201~"), testing::IsEmpty());
  EXPECT_GT(player.editor().text().size(), 1'000'000u);
}

}  // namespace
}  // namespace bitctl
