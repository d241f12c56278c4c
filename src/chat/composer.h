// Keys to text to intentions: what each key does to the text being typed, and when it is sent. Pure; the one
// place that decides that Enter never sends.
#pragma once

#include <string>
#include <vector>

#include "chat/editor.h"
#include "chat/keys.h"

namespace bitctl {

struct Intention {
  enum class Kind { none, send, leave, interrupt, suspend, redraw };
  Kind kind = Kind::none;
  std::string text = {};  // of send: trimmed, never empty

  bool operator==(const Intention&) const = default;
};

class Composer {
 public:
  const Editor& editor() const { return editor_; }

  // `width` is the number of cells a row of text has. What is sent goes into the history, and the text is
  // empty again.
  Intention apply(const Key& key, int width);
  void clear();
  // Text that nobody typed, at the cursor: as in a paste.
  void put(std::string_view text) { editor_.insert(text); }

 private:
  Intention send();
  void recall(int by);

  Editor editor_;
  std::vector<std::string> history_;
  size_t recalled_ = 0;  // history_.size(): the draft
  std::string draft_;
};

}  // namespace bitctl
