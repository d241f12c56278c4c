// The controlling side of the user's terminal: raw mode and the key encodings we ask for, always undone: on
// exit, by leave(), by the destructor, and by a handler for signals that end the process. One at a time per
// process.
#pragma once

#include <string_view>

#include "base/fd.h"

namespace bitctl {

class Terminal {
 public:
  // Standard input and output are one terminal that can move its cursor.
  static bool is_there();

  Terminal() = default;
  ~Terminal() { leave(); }
  Terminal(const Terminal&) = delete;

  // Raw mode (CR stays CR, Ctrl+C is a byte), bracketed paste, kitty's flag 1. False where the terminal
  // refuses.
  bool enter();
  void leave();
  bool entered() const { return entered_; }
  // A shell that has stopped us has the terminal meanwhile, and sets it as it wants it.
  bool in_foreground() const;

  // Asks what it can do. Answers come as keys, whenever they come; nobody waits for them.
  void ask_what_it_tells();
  bool expects_answers() const { return extended_keys_; }
  // It does not speak kitty's protocol: asks for xterm's modifyOtherKeys instead.
  void ask_for_other_keys();

  // Blocks while the terminal takes nothing, until a signal waits that ends us: then the rest is dropped.
  void write(std::string_view bytes);
  int width() const;
  int height() const;

 private:
  Fd output_;  // the terminal once more: writing to it blocks no one, and nobody else's descriptor changes
  bool given_up_ = false;
  bool entered_ = false;
  bool extended_keys_ = false;  // worth asking for
  bool other_keys_ = false;     // asked for, and again after every leave()
};

}  // namespace bitctl
