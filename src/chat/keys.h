// Terminal bytes in, key events out: incremental and pure. Knows the legacy encodings, kitty's CSI u (flag
// 1), xterm's modifyOtherKeys and bracketed paste; what it does not know it swallows whole, never in part.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace bitctl {

enum class KeyKind {
  text,     // typed or committed by an input method; valid UTF-8 without control characters but '\t'
  paste,    // the whole of a bracketed paste; valid UTF-8, '\n' and '\t' its only control characters
  newline,  // Enter, Shift+Enter
  send,     // Ctrl+Enter, Alt+Enter, Ctrl+J
  end_of_input,
  interrupt,
  suspend,
  redraw,
  search,           // Ctrl+R
  external_editor,  // Ctrl+G
  backspace,
  erase,
  left,
  right,
  up,
  down,
  home,
  end,
  word_left,
  word_right,
  kill_word,
  kill_to_start,
  kill_to_end,
  kitty_flags,        // the terminal's answer to CSI ? u
  device_attributes,  // its answer to CSI c
};

struct Key {
  KeyKind kind;
  std::string text = {};  // text, paste
  int flags = 0;          // kitty_flags
  // It came as CSI u or modifyOtherKeys, which proves that this terminal tells Ctrl+Enter from Enter.
  bool extended = false;

  bool operator==(const Key&) const = default;
};

// A text as a paste gives it: valid UTF-8, '\n' and '\t' its only control characters.
std::string cleaned_paste(std::string_view raw);

class KeyParser {
 public:
  // What these bytes complete; the rest is kept for the next call.
  std::vector<Key> feed(std::string_view bytes);

  // After how much silence to call settle(), where that changes anything: a lone ESC, or an introducer with
  // nothing behind it, was the Esc key or Alt+[ and is forgotten, so that a later Enter is not taken for
  // Alt+Enter; a paste whose end never came is given as it is, so that it does not swallow Ctrl+C for ever.
  std::optional<Duration> settles_after() const;
  std::vector<Key> settle();

 private:
  enum class State { ground, escape, csi, ss3, string, string_escape, console_function, paste };

  void step(unsigned char byte);
  void ground(unsigned char byte);
  void continue_utf8(unsigned char byte);
  void escape(unsigned char byte);
  void csi(unsigned char byte);
  void ss3(unsigned char byte);
  void string(unsigned char byte);
  size_t take_paste(std::string_view bytes);
  void end_paste();

  void control(int code, bool extended = false);
  void alt(int code, bool extended = false);
  void finish_csi(char final);
  void modified_key(int code, int modifiers, int event, std::string_view text);
  void add(KeyKind kind, bool extended = false) { keys_.push_back({.kind = kind, .extended = extended}); }
  void add_text(std::string_view text);

  State state_ = State::ground;
  bool sequence_is_empty_ = false;  // nothing came behind the introducer yet
  std::string partial_;             // of a UTF-8 sequence
  std::string parameters_;          // of a CSI
  std::string paste_;
  std::vector<Key> keys_;
};

}  // namespace bitctl
