#include "chat/editor.h"

#include <algorithm>

#include "chat/graphemes.h"

namespace bitctl {
namespace {

constexpr std::string_view kBlank = " \n\t";

}  // namespace

void Editor::set(std::string text) {
  text_ = std::move(text);
  move_to(text_.size());
}

void Editor::insert(std::string_view text) {
  text_.insert(cursor_, text);
  move_to(cursor_ + text.size());
}

void Editor::backspace() { remove(previous_grapheme(text_, cursor_), cursor_); }
void Editor::erase() { remove(cursor_, next_grapheme(text_, cursor_)); }
void Editor::left() { move_to(previous_grapheme(text_, cursor_)); }
void Editor::right() { move_to(next_grapheme(text_, cursor_)); }
void Editor::home() { move_to(line_begin()); }
void Editor::end() { move_to(line_end()); }
void Editor::word_left() { move_to(word_begin()); }

void Editor::word_right() {
  const size_t word = text_.find_first_not_of(kBlank, cursor_);
  move_to(std::min(text_.find_first_of(kBlank, word), text_.size()));
}

void Editor::kill_word() { remove(word_begin(), cursor_); }
void Editor::kill_to_start() { remove(line_begin(), cursor_); }
void Editor::kill_to_end() {
  // At the end of a line it takes the line break, as readline's users expect.
  remove(cursor_, line_end() == cursor_ ? next_grapheme(text_, cursor_) : line_end());
}

std::string_view Editor::line() const {
  return std::string_view(text_).substr(line_begin(), line_end() - line_begin());
}

void Editor::remove_line() {
  const size_t begin = line_begin();
  remove(begin == 0 ? 0 : begin - 1, line_end());
}

bool Editor::move_row(int by, int width) {
  const auto rows = break_rows(text_, width);
  const size_t row = row_of(rows, cursor_);
  if ((by < 0 && row == 0) || (by > 0 && row + 1 == rows.size())) return false;
  const int column = column_.value_or(
      display_width(std::string_view(text_).substr(rows[row].begin, cursor_ - rows[row].begin)));
  const auto [begin, end] = rows[row + static_cast<size_t>(by)];
  size_t at = begin;
  for (int cells = 0; at < end;) {
    const size_t next = next_grapheme(text_, at);
    cells += cell_of(std::string_view(text_).substr(at, next - at)).width;
    // The end of a softly broken row is the beginning of the next one, so the cursor stays before the last
    // grapheme.
    if (cells > column || (next == end && end < text_.size() && text_[end] != '\n')) break;
    at = next;
  }
  cursor_ = at;
  column_ = column;
  return true;
}

size_t Editor::line_begin() const {
  const size_t found = cursor_ == 0 ? std::string::npos : text_.rfind('\n', cursor_ - 1);
  return found == std::string::npos ? 0 : found + 1;
}

size_t Editor::line_end() const {
  const size_t found = text_.find('\n', cursor_);
  return found == std::string::npos ? text_.size() : found;
}

size_t Editor::word_begin() const {
  const size_t word = cursor_ == 0 ? std::string::npos : text_.find_last_not_of(kBlank, cursor_ - 1);
  if (word == std::string::npos) return 0;
  const size_t blank = text_.find_last_of(kBlank, word);
  return blank == std::string::npos ? 0 : blank + 1;
}

void Editor::remove(size_t begin, size_t end) {
  text_.erase(begin, end - begin);
  move_to(begin);
}

void Editor::move_to(size_t at) {
  cursor_ = at;
  column_.reset();
  if (at == 0 || at == text_.size()) return;
  // What stands side by side now may have joined into one grapheme, and a blank may begin one: the border
  // behind it.
  cursor_ = previous_grapheme(text_, at);
  while (cursor_ < at) cursor_ = next_grapheme(text_, cursor_);
}

}  // namespace bitctl
