#include "chat/keys.h"

#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <span>
#include <utility>

#include "base/text.h"
#include "base/visible_text.h"

namespace bitctl {
namespace {

constexpr std::string_view kPasteEnd = "\x1b[201~";
constexpr std::string_view kReplacement = "\xef\xbf\xbd";
constexpr size_t kMaxParameters = 256;
constexpr auto kEscapeDelay = std::chrono::milliseconds(100);
constexpr auto kPasteDelay = std::chrono::seconds(1);

// Modifier bits of kitty and xterm, after their "value - 1"; CapsLock (64) and NumLock (128) do not count.
constexpr int kShift = 1, kAlt = 2, kCtrl = 4, kSuper = 8, kLocks = 64 | 128;
constexpr int kRepeat = 2, kRelease = 3;  // kitty's event types
constexpr int kEnter = 13, kTab = 9, kEscape = 27, kBackspace = 127;

constexpr int kKeypadEnter = 57414;

using Meaning = std::pair<int, KeyKind>;
constexpr Meaning kControls[] = {{'\r', KeyKind::newline},
                                 {'\n', KeyKind::send},
                                 {0x01, KeyKind::home},
                                 {0x02, KeyKind::left},
                                 {0x03, KeyKind::interrupt},
                                 {0x04, KeyKind::end_of_input},
                                 {0x05, KeyKind::end},
                                 {0x06, KeyKind::right},
                                 {0x08, KeyKind::backspace},
                                 {0x7f, KeyKind::backspace},
                                 {0x0b, KeyKind::kill_to_end},
                                 {0x0c, KeyKind::redraw},
                                 {0x0e, KeyKind::down},
                                 {0x10, KeyKind::up},
                                 {0x15, KeyKind::kill_to_start},
                                 {0x17, KeyKind::kill_word},
                                 {0x1a, KeyKind::suspend},
                                 {0x12, KeyKind::search},
                                 {0x07, KeyKind::external_editor}};
constexpr Meaning kWithAlt[] = {{'\r', KeyKind::send},      {'\n', KeyKind::send},
                                {'b', KeyKind::word_left},  {'f', KeyKind::word_right},
                                {0x08, KeyKind::kill_word}, {0x7f, KeyKind::kill_word}};
// The last byte of CSI 1 ; modifiers X, and of SS3 X.
constexpr Meaning kFinals[] = {{'A', KeyKind::up},   {'B', KeyKind::down}, {'C', KeyKind::right},
                               {'D', KeyKind::left}, {'H', KeyKind::home}, {'F', KeyKind::end}};
// The number of CSI N ~.
constexpr Meaning kNumbers[] = {
    {1, KeyKind::home}, {7, KeyKind::home}, {4, KeyKind::end}, {8, KeyKind::end}, {3, KeyKind::erase}};
// Keypad keys, by kitty's own numbers.
constexpr Meaning kKeypad[] = {{57417, KeyKind::left}, {57418, KeyKind::right}, {57419, KeyKind::up},
                               {57420, KeyKind::down}, {57423, KeyKind::home},  {57424, KeyKind::end},
                               {57426, KeyKind::erase}};

std::optional<KeyKind> meaning_of(int code, std::span<const Meaning> table) {
  for (const auto& [known, kind] : table)
    if (known == code) return kind;
  return std::nullopt;
}

int number(std::string_view text, int otherwise) {
  int value = otherwise;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// Parameter i of "a;b:c;d", without its sub-parameters unless one is asked for.
std::string_view parameter(const std::vector<std::string>& all, size_t i, size_t sub = 0) {
  if (i >= all.size()) return {};
  std::string_view rest = all[i];
  for (; sub > 0; --sub) {
    const size_t colon = rest.find(':');
    if (colon == std::string_view::npos) return {};
    rest.remove_prefix(colon + 1);
  }
  return rest.substr(0, rest.find(':'));
}

size_t utf8_length(unsigned char lead) {
  return lead >= 0xf5 ? 0 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 0;
}

std::string as_utf8(int code_point) {
  utf8proc_uint8_t bytes[4];
  const auto size = utf8proc_encode_char(code_point, bytes);
  return {reinterpret_cast<const char*>(bytes), static_cast<size_t>(size)};
}

bool is_c1(std::string_view character) {
  return character.size() == 2 && character[0] == '\xc2' && static_cast<unsigned char>(character[1]) < 0xa0;
}

}  // namespace

// CR, LF and CRLF become '\n'; other control characters but the tab are left out.
std::string cleaned_paste(std::string_view raw) {
  std::string text;
  text.reserve(raw.size());
  for (size_t i = 0; i < raw.size(); ++i) {
    const auto c = static_cast<unsigned char>(raw[i]);
    if (c == '\r') {
      text += '\n';
      if (i + 1 < raw.size() && raw[i + 1] == '\n') ++i;
    } else if (is_c1(raw.substr(i, 2))) {
      ++i;
    } else if ((c >= 0x20 && c != 0x7f) || c == '\n' || c == '\t') {
      text += raw[i];
    }
  }
  return valid_utf8(text);
}

std::vector<Key> KeyParser::feed(std::string_view bytes) {
  keys_.clear();
  for (size_t at = 0; at < bytes.size();) {
    if (state_ == State::paste)
      at += take_paste(bytes.substr(at));
    else
      step(static_cast<unsigned char>(bytes[at++]));
  }
  return std::move(keys_);
}

std::optional<Duration> KeyParser::settles_after() const {
  if (state_ == State::paste) return kPasteDelay;
  const bool at_escape = state_ == State::escape || state_ == State::string_escape;
  if (at_escape || (state_ != State::ground && sequence_is_empty_)) return kEscapeDelay;
  return std::nullopt;
}

std::vector<Key> KeyParser::settle() {
  keys_.clear();
  if (state_ == State::paste)
    end_paste();
  else if (settles_after())
    state_ = State::ground;
  return std::move(keys_);
}

void KeyParser::step(unsigned char byte) {
  if (state_ == State::ground) return ground(byte);
  if (state_ == State::escape) return escape(byte);
  // Inside a sequence: ESC begins another one; what people use to get out of trouble must never be swallowed.
  const bool is_string = state_ == State::string || state_ == State::string_escape;
  if (byte == 0x03 || byte == 0x04) {
    state_ = State::ground;
    return ground(byte);
  }
  if (byte == 0x1b && !is_string) {
    state_ = State::escape;
    return;
  }
  sequence_is_empty_ = false;
  switch (state_) {
    case State::csi:
      return csi(byte);
    case State::ss3:
      return ss3(byte);
    case State::console_function:
      state_ = State::ground;
      return;
    default:
      return string(byte);
  }
}

void KeyParser::ground(unsigned char byte) {
  if (!partial_.empty()) return continue_utf8(byte);
  if (byte == 0x1b) {
    state_ = State::escape;
  } else if (byte < 0x20 || byte == 0x7f) {
    control(byte);
  } else if (byte < 0x80) {
    add_text({reinterpret_cast<const char*>(&byte), 1});
  } else if (utf8_length(byte) == 0) {
    add_text(kReplacement);
  } else {
    partial_ = static_cast<char>(byte);
  }
}

void KeyParser::continue_utf8(unsigned char byte) {
  if ((byte & 0xc0) != 0x80) {
    partial_.clear();
    add_text(kReplacement);
    return ground(byte);
  }
  partial_ += static_cast<char>(byte);
  if (partial_.size() < utf8_length(static_cast<unsigned char>(partial_[0]))) return;
  char32_t code_point = 0;
  const bool valid = decode_utf8(partial_, 0, code_point) > 0;
  if (!valid)
    add_text(kReplacement);
  else if (!is_c1(partial_))
    add_text(partial_);
  partial_.clear();
}

void KeyParser::escape(unsigned char byte) {
  state_ = State::ground;
  sequence_is_empty_ = true;
  switch (byte) {
    case '[':
      state_ = State::csi;
      parameters_.clear();
      return;
    case 'O':
      state_ = State::ss3;
      return;
    case ']':  // OSC
    case 'P':  // DCS
    case 'X':  // SOS
    case '^':  // PM
    case '_':  // APC
      state_ = State::string;
      return;
    case 0x1b:
      state_ = State::escape;
      return;
    default:
      // A character that is no ASCII was committed right behind an Esc: it is text.
      return byte < 0x80 ? alt(byte) : ground(byte);
  }
}

void KeyParser::csi(unsigned char byte) {
  if (parameters_.empty() && byte == '[') {  // the Linux console's function keys: ESC [ [ A
    state_ = State::console_function;
    return;
  }
  if (byte >= 0x20 && byte < 0x40) {
    if (parameters_.size() <= kMaxParameters) parameters_ += static_cast<char>(byte);
    return;
  }
  state_ = State::ground;
  if (byte >= 0x40 && byte < 0x7f)
    finish_csi(static_cast<char>(byte));
  else
    ground(byte);  // no CSI after all: the sequence is dropped, the byte is not
}

void KeyParser::ss3(unsigned char byte) {
  if (byte >= '0' && byte <= ';') return;  // modifiers, as some terminals send them
  state_ = State::ground;
  if (const auto kind = meaning_of(byte, kFinals)) return add(*kind);
  if (byte == 'M') return add(KeyKind::newline);  // the keypad's Enter
  if (byte < 0x20 || byte > 0x7e) ground(byte);
}

void KeyParser::string(unsigned char byte) {
  if (state_ == State::string_escape) {
    state_ = State::ground;
    if (byte != '\\') escape(byte);  // no terminator: another sequence began
  } else if (byte == 0x1b) {
    state_ = State::string_escape;
  } else if (byte == 0x07) {
    state_ = State::ground;
  }
}

size_t KeyParser::take_paste(std::string_view bytes) {
  // The end mark may straddle two reads, so the search begins a mark's length before the new bytes.
  const size_t had = paste_.size();
  const size_t from = had - std::min(had, kPasteEnd.size() - 1);
  paste_ += bytes;
  const size_t found = paste_.find(kPasteEnd, from);
  if (found == std::string::npos) return bytes.size();
  const size_t taken = found + kPasteEnd.size() - had;
  paste_.resize(found);
  end_paste();
  return taken;
}

void KeyParser::end_paste() {
  if (std::string text = cleaned_paste(paste_); !text.empty())
    keys_.push_back({.kind = KeyKind::paste, .text = std::move(text)});
  paste_.clear();
  state_ = State::ground;
}

void KeyParser::finish_csi(char final) {
  const bool is_reply = !parameters_.empty() && parameters_[0] >= '<' && parameters_[0] <= '?';
  const std::string_view body = std::string_view(parameters_).substr(is_reply ? 1 : 0);
  const bool known = body.find_first_not_of("0123456789;:") == std::string_view::npos;
  if (!known || parameters_.size() > kMaxParameters) return;
  const auto all = split(body, ';');
  if (is_reply) {
    if (parameters_[0] == '?' && final == 'u')
      keys_.push_back({.kind = KeyKind::kitty_flags, .flags = number(parameter(all, 0), 0)});
    else if (parameters_[0] == '?' && final == 'c')
      add(KeyKind::device_attributes);
    return;
  }
  const int first = number(parameter(all, 0), 1);
  const int modifiers = std::max(number(parameter(all, 1), 1) - 1, 0) & ~kLocks;
  const int event = number(parameter(all, 1, 1), 1);
  if (final == 'u') return modified_key(first, modifiers, event, parameter(all, 2));
  if (final == '~' && first == 27) return modified_key(number(parameter(all, 2), 0), modifiers, event, {});
  if (final == '~' && first == 200) {
    state_ = State::paste;
    return;
  }
  if (event == kRelease) return;
  auto kind = final == '~' ? meaning_of(first, kNumbers) : meaning_of(final, kFinals);
  if (!kind) return;
  const bool by_word = (modifiers & (kCtrl | kAlt)) != 0;
  if (by_word && kind == KeyKind::left) kind = KeyKind::word_left;
  if (by_word && kind == KeyKind::right) kind = KeyKind::word_right;
  add(*kind);
}

void KeyParser::modified_key(int code, int modifiers, int event, std::string_view text) {
  if (event == kRelease) return;
  if (code == kEnter || code == kKeypadEnter) {
    if ((modifiers & (kCtrl | kAlt | kSuper)) == 0) return add(KeyKind::newline, true);
    if (event != kRepeat) add(KeyKind::send, true);
    return;
  }
  if (const auto kind = meaning_of(code, kKeypad)) return add(*kind, true);
  if (code == kEscape) return;
  if (code == kBackspace || code == 8)
    return add((modifiers & (kCtrl | kAlt)) != 0 ? KeyKind::kill_word : KeyKind::backspace, true);
  if ((modifiers & kCtrl) != 0) {
    if (code >= '@' && code < 0x7f) control(code & 0x1f, true);
    return;
  }
  if ((modifiers & kAlt) != 0) return alt(code, true);
  const int typed = text.empty() ? code : number(text, 0);
  if ((modifiers & ~kShift) != 0) return;
  if (typed == kTab) {
    if (modifiers == 0) add_text("\t");
    return;
  }
  const bool is_functional = typed >= 0xe000 && typed <= 0xf8ff;  // kitty's numbers for keys without a text
  const bool is_control = typed < 0x20 || (typed >= 0x7f && typed < 0xa0);
  if (!is_functional && !is_control && utf8proc_codepoint_valid(typed)) add_text(as_utf8(typed));
}

void KeyParser::alt(int code, bool extended) {
  if (const auto kind = meaning_of(code, kWithAlt)) return add(*kind, extended);
  if (code < 0x20) control(code, extended);
}

void KeyParser::control(int code, bool extended) {
  if (code == kTab) return add_text("\t");
  if (const auto kind = meaning_of(code, kControls)) add(*kind, extended);
}

void KeyParser::add_text(std::string_view text) {
  if (keys_.empty() || keys_.back().kind != KeyKind::text) add(KeyKind::text);
  keys_.back().text += text;
}

}  // namespace bitctl
