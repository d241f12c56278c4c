// Keys to text to intentions: what each key does to the text being typed, and when it is sent. Pure; the one
// place that decides that Enter never sends, unless the user asked for that.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "chat/editor.h"
#include "chat/keys.h"

namespace bitctl {

struct Intention {
  enum class Kind { none, send, leave, interrupt, suspend, redraw, edit_externally };
  Kind kind = Kind::none;
  std::string text = {};  // of send: trimmed, never empty

  bool operator==(const Intention&) const = default;
};

class Composer {
 public:
  // `enter_sends`: Enter sends, and the keys that would have sent break the line.
  explicit Composer(bool enter_sends = false) : enter_sends_(enter_sends) {}

  const Editor& editor() const { return editor_; }
  // Prompts from before everything that was sent here; oldest first.
  void remember(std::vector<std::string> prompts);

  // `width` is the number of cells a row of text has. What is sent goes into the history, and the text is
  // empty again.
  Intention apply(const Key& key, int width);
  void clear();
  // Text that nobody typed, at the cursor: as in a paste.
  void put(std::string_view text) { editor_.insert(text); }
  void replace(std::string text) { editor_.set(std::move(text)); }

  // While the history is searched: what for, and the keys. Else empty.
  std::string search_hint() const;

 private:
  struct Search {
    std::string query;
    std::string before;  // the text that was being typed
    size_t at = 0;       // the prompt that is shown
    bool found = true;
  };

  Intention edit(const Key& key, int width);
  Intention send();
  void recall(int by);
  bool search(const Key& key);  // false: the key is not of the search, which is over
  void find(size_t below);

  const bool enter_sends_;
  Editor editor_;
  std::vector<std::string> history_;
  size_t recalled_ = 0;  // history_.size(): the draft
  std::string draft_;
  std::optional<Search> search_;
};

}  // namespace bitctl
