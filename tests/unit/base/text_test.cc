#include "base/text.h"

#include <gtest/gtest.h>

#include <csignal>

#include "base/visible_text.h"

namespace bitctl {
namespace {

using namespace std::chrono_literals;

TEST(Text, Durations) {
  EXPECT_EQ(parse_duration("30s"), 30s);
  EXPECT_EQ(parse_duration("1h30m"), 90min);
  EXPECT_EQ(parse_duration("500ms"), 500ms);
  EXPECT_EQ(parse_duration("0.5s"), 500ms);
  for (const char* bad : {"", "30", "s", "1x", "1.2.3s", "-1s", "1s ", "99999999999d", ".5s"})
    EXPECT_FALSE(parse_duration(bad)) << bad;
  EXPECT_FALSE(parse_duration(std::string(400, '9').append("s")));
  EXPECT_EQ(format_duration(400ms), "0.4s");
  EXPECT_EQ(format_duration(12ms), "12ms");
  EXPECT_EQ(format_duration(4s), "4s");
  EXPECT_EQ(format_duration(0s), "0s");
  EXPECT_EQ(format_duration(12400ms), "12s");
  EXPECT_EQ(format_duration(250s), "4m10s");
  EXPECT_EQ(format_duration(3h + 12min), "3h12m");
  EXPECT_EQ(format_duration(52h), "2d04h");
}

TEST(Text, Sizes) {
  EXPECT_EQ(parse_size("20GiB"), 20ull << 30);
  EXPECT_EQ(parse_size("1.5KB"), 1500u);
  EXPECT_EQ(parse_size("4096"), 4096u);
  for (const char* bad : {"", "GiB", "1 GiB", "-1", "1e30TiB", "1QB"}) EXPECT_FALSE(parse_size(bad)) << bad;
  EXPECT_FALSE(parse_size(std::string(400, '9')));
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(1288490189), "1.2 GiB");
}

TEST(Text, Signals) {
  EXPECT_EQ(signal_name(SIGKILL), "SIGKILL");
  EXPECT_EQ(signal_name(99), "signal 99");
  for (const char* name : {"SIGTERM", "TERM", "15"}) EXPECT_EQ(signal_number(name), SIGTERM) << name;
  EXPECT_FALSE(signal_number("SIGNOPE"));
}

TEST(VisibleText, ShowsWhatCouldSteerATerminal) {
  EXPECT_EQ(visible_text("\x1b]0;title\x07"), "^[]0;title^G");
  EXPECT_EQ(visible_text("a\nb\tc"), "a^Jb^Ic");
  EXPECT_EQ(visible_text("a\nb\tc\r", Newlines::keep), "a\nb\tc^M");
  EXPECT_EQ(visible_text("\x7f"), "^?");
  EXPECT_EQ(visible_text("\xc2\x9b"), "⟦U+009B⟧");
  EXPECT_EQ(visible_text("\xe2\x80\xae"), "⟦U+202E⟧");
  EXPECT_EQ(visible_text("\xe2\x81\xa6"), "⟦U+2066⟧");
  EXPECT_EQ(visible_text("\x9b\xff"), "\\x9b\\xff");
  EXPECT_EQ(visible_text("あ👩‍👩‍👧é"), "あ👩‍👩‍👧é");
}

// No string of bytes gets a control character through, and the result is always UTF-8.
TEST(VisibleText, AnyBytes) {
  uint64_t state = 88172645463325252ull;
  for (int round = 0; round < 100000; ++round) {
    std::string bytes;
    for (int i = 0; i < 12; ++i) {
      state ^= state << 13, state ^= state >> 7, state ^= state << 17;
      bytes += static_cast<char>(state);
    }
    const std::string shown = visible_text(bytes);
    for (size_t at = 0; at < shown.size();) {
      char32_t c = 0;
      const size_t length = decode_utf8(shown, at, c);
      ASSERT_GT(length, 0u);
      ASSERT_TRUE(c >= 0x20 && c != 0x7f && !(c >= 0x80 && c < 0xa0) && !(c >= 0x202a && c <= 0x202e) &&
                  !(c >= 0x2066 && c <= 0x2069));
      at += length;
    }
  }
}

TEST(VisibleText, OverlongFormsAndSurrogatesAreNoUtf8) {
  char32_t c = 0;
  for (const char* bad :
       {"\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88", "\x80", "\xe2\x82"})
    EXPECT_EQ(decode_utf8(bad, 0, c), 0u);
  EXPECT_EQ(valid_utf8("a\xff"), "a\xef\xbf\xbd");
  EXPECT_EQ(shortened("ああ", 4), "あ…");
}

}  // namespace
}  // namespace bitctl
