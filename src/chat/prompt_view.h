// The prompt as rows of a terminal: pure. What is drawn depends on the text, the cursor and the size alone.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace bitctl {

struct PromptFrame {
  std::vector<std::string> rows;
  size_t cursor_row = 0;
  // What stands left of the cursor in its row. The cursor is put there by writing this again, so it is at the
  // insertion point even where the terminal and we disagree about the width of a character.
  std::string before_cursor;

  bool operator==(const PromptFrame&) const = default;
};

struct PromptStyle {
  int width = 80;         // of the terminal
  int height = 24;        // a longer text shows the rows around its cursor
  std::string send_keys;  // "Ctrl+Enter"
  std::string hint = {};  // for the row below the text, instead of those keys
  bool faint = true;      // the hints; not where NO_COLOR asks for plain text
};

std::string faint(std::string_view text);

// Cells of text in a row, at least one: what the mark at its left and the cursor's own cell leave. A terminal
// of less than four columns has no room for the mark.
int text_width(int terminal_width);

// An empty text shows "Type a message... (<send_keys> to send)"; one of several lines says the keys below it.
PromptFrame prompt_frame(std::string_view text, size_t cursor, const PromptStyle& style);

}  // namespace bitctl
