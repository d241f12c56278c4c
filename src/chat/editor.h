// The text being typed: pure, many lines, edited by graphemes.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace bitctl {

class Editor {
 public:
  const std::string& text() const { return text_; }
  size_t cursor() const { return cursor_; }  // byte offset, on a grapheme border
  bool empty() const { return text_.empty(); }

  void set(std::string text);  // cursor at its end
  void insert(std::string_view text);
  void backspace();
  void erase();

  void left();
  void right();
  // By rows of a text broken at `width` cells; false where there is no such row.
  bool up(int width) { return move_row(-1, width); }
  bool down(int width) { return move_row(+1, width); }
  void home();  // of the line
  void end();
  void word_left();
  void word_right();

  void kill_word();      // back to the beginning of the word
  void kill_to_start();  // of the line
  void kill_to_end();

  // The line in which the cursor stands, without its '\n'.
  std::string_view line() const;
  // Takes that line out, with the line break in front of it.
  void remove_line();

 private:
  bool move_row(int by, int width);
  size_t line_begin() const;
  size_t line_end() const;
  size_t word_begin() const;
  void remove(size_t begin, size_t end);
  void move_to(size_t at);

  std::string text_;
  size_t cursor_ = 0;
  std::optional<int> column_;  // where a row of vertical moves began
};

}  // namespace bitctl
