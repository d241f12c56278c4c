// What a terminal may send, through parser, composer and screen: nothing but the keys that send may send.
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "base/visible_text.h"
#include "chat/composer.h"
#include "chat/graphemes.h"
#include "chat/prompt_view.h"
#include "chat/screen.h"
#include "chat/slash_command.h"

using namespace bitctl;

namespace {

constexpr char16_t kSilence = 0x100;  // beside the bytes of the stream

void check(bool holds) {
  if (!holds) std::abort();
}

// The rules of docs/chat.md, by looking back from where the stream stands: not by the parser's states.
class Oracle {
 public:
  explicit Oracle(bool enter_sends) : enter_sends_(enter_sends) {}

  void add(char16_t item) {
    stream_ += item;
    if (item == kSilence)
      in_paste_ = false;
    else if (stream_.ends_with(u"\x1b[200~"))
      in_paste_ = true;
    else if (stream_.ends_with(u"\x1b[201~"))
      in_paste_ = false;
  }

  // Whether the text may be sent now, which had `line` at its cursor before.
  bool may_send(std::string_view line) const {
    if (in_paste_ || stream_.empty()) return false;
    const auto [code, modifiers, is_plain] = last_key();
    const bool enter = code == 13 || code == 57414;
    const bool control = (modifiers & 4) != 0, alt = (modifiers & 2) != 0, super = (modifiers & 8) != 0;
    const bool is_ctrl_j = code == 10 || (control && (code & 0x1f) == 10);
    const bool is_enter = (enter && !control && !alt && !super) || (control && (code & 0x1f) == 13 && !enter);
    const bool is_ctrl_d = code == 4 || (control && (code & 0x1f) == 4);
    if (is_ctrl_d) return true;
    const bool breaks_the_line = enter_sends_ ? is_ctrl_j || (enter && !is_plain) : is_enter;
    const bool sends = enter_sends_ ? is_plain && is_enter && !alt : is_ctrl_j || (enter && !is_enter);
    return sends || ((breaks_the_line || is_enter) && line == "/send");
  }

 private:
  struct Pressed {
    int code = 0;
    int modifiers = 0;
    bool is_plain = false;  // a byte of its own
  };

  Pressed last_key() const {
    const char16_t last = stream_.back();
    const size_t escape = stream_.size() < 2 ? stream_.npos : stream_.rfind(u'\x1b', stream_.size() - 2);
    const bool behind_escape = escape != stream_.npos && escape + 2 == stream_.size();
    if (last < 0x20) return {last, behind_escape ? 2 : 0, !behind_escape};
    if (escape == stream_.npos) return {};
    std::string sequence;  // a silence inside it changes nothing
    for (const char16_t item : stream_.substr(escape + 1))
      if (item != kSilence) sequence += static_cast<char>(item);
    if (sequence.size() >= 2 && sequence[0] == 'O' && last == 'M') return {13, 0, true};
    if (sequence[0] != '[') return {behind_escape ? last : 0, 2, false};
    std::vector<int> fields;
    for (size_t at = 1; at < sequence.size();) {
      int value = 0;
      std::from_chars(sequence.data() + at, sequence.data() + sequence.size(), value);
      fields.push_back(value);
      const size_t next = sequence.find(';', at);
      at = next == std::string::npos ? sequence.size() : next + 1;
    }
    fields.resize(std::max<size_t>(fields.size(), 3));
    const int modifiers = std::max(fields[1] - 1, 0);
    if (last == 'u') return {fields[0], modifiers, false};
    if (last == '~' && fields[0] == 27) return {fields[2], modifiers, false};
    return {};
  }

  const bool enter_sends_;
  std::u16string stream_;
  bool in_paste_ = false;
};

bool is_clean(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    char32_t c = 0;
    const size_t length = decode_utf8(text, at, c);
    if (length == 0 || (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0)) return false;
    at += length;
  }
  return true;
}

class Chat {
 public:
  Chat(bool enter_sends, int width)
      : oracle_(enter_sends), composer_(enter_sends), screen_(width), width_(width) {}

  void byte(char byte) {
    oracle_.add(static_cast<unsigned char>(byte));
    bytes_ += byte;
    take(parser_.feed({&byte, 1}));
  }

  // The end of a read: the same bytes at once give the same keys.
  void flush() {
    check(joined(whole_.feed(std::exchange(bytes_, {}))) == joined(std::exchange(keys_, {})));
    check(whole_.settles_after() == parser_.settles_after());
    draw();
  }

  void silence() {
    flush();
    oracle_.add(kSilence);
    if (!parser_.settles_after()) return;
    const std::vector<Key> keys = parser_.settle();
    check(whole_.settle() == keys && !parser_.settles_after());
    take(keys);
    keys_.clear();
  }

 private:
  static std::vector<Key> joined(std::vector<Key> keys) {
    std::vector<Key> all;
    for (Key& key : keys) {
      if (key.kind == KeyKind::text && !all.empty() && all.back().kind == KeyKind::text)
        all.back().text += key.text;
      else
        all.push_back(std::move(key));
    }
    return all;
  }

  void take(const std::vector<Key>& keys) {
    check(keys.size() <= 2);  // of one byte: what it broke off, and itself
    for (const Key& key : keys) {
      const Editor& editor = composer_.editor();
      const std::string line(editor.line());
      const Intention intention = composer_.apply(key, text_width(width_));
      if (intention.kind == Intention::Kind::send) sent(intention.text, line);
      if (intention.kind == Intention::Kind::interrupt) composer_.clear();
      keys_.push_back(key);
    }
  }

  void sent(const std::string& text, std::string_view line) {
    check(oracle_.may_send(line));
    check(!text.empty() && is_clean(text) && composer_.editor().empty());
    interpret(text);
    screen_.print_line(visible_text(text, Newlines::keep));
  }

  void draw() {
    const Editor& editor = composer_.editor();
    const size_t cursor = editor.cursor();
    check(is_clean(editor.text()) && cursor <= editor.text().size());
    check(cursor == 0 || next_grapheme(editor.text(), previous_grapheme(editor.text(), cursor)) == cursor);
    const PromptFrame frame = prompt_frame(
        editor.text(), cursor, {.width = width_, .send_keys = "Ctrl+Enter", .hint = composer_.search_hint()});
    check(!frame.rows.empty() && frame.rows.size() <= 24 && frame.cursor_row < frame.rows.size());
    screen_.draw(frame);
  }

  Oracle oracle_;
  KeyParser parser_, whole_;
  Composer composer_;
  Screen screen_;
  const int width_;
  std::string bytes_;
  std::vector<Key> keys_;
};

}  // namespace

// The first byte: the width, and who sends. Then the terminal's bytes; 0xff 0x00 is a silence among them,
// 0xff and anything else the border of a read and that byte.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  Chat chat((data[0] & 0x80) != 0, 1 + data[0] % 0x50);
  for (size_t i = 1; i < size; ++i) {
    if (data[i] == 0xff && i + 1 < size && data[++i] == 0) {
      chat.silence();
    } else {
      if (data[i - 1] == 0xff) chat.flush();
      chat.byte(static_cast<char>(data[i]));
    }
  }
  chat.flush();
  return 0;
}
