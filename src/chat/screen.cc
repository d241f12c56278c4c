#include "chat/screen.h"

#include <fmt/format.h>

#include <utility>

#include "chat/graphemes.h"

namespace bitctl {
namespace {

constexpr std::string_view kClearBelow = "\r\x1b[J";
constexpr std::string_view kClearRight = "\x1b[K";

std::string up(size_t rows) { return rows == 0 ? "" : fmt::format("\x1b[{}A", rows); }
std::string down(size_t rows) { return rows == 0 ? "" : fmt::format("\x1b[{}B", rows); }

// '\n' moves down only: in raw mode the carriage does not return by itself everywhere.
std::string with_returns(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n')
      out += "\r\n";
    else if (c == '\t')
      out += "    ";
    else
      out += c;
  }
  return out;
}

}  // namespace

std::string Screen::to_prompt_top() const { return up(frame_.cursor_row); }

std::string Screen::paint() const {
  std::string out;
  for (size_t i = 0; i < frame_.rows.size(); ++i) out += (i == 0 ? "\r" : "\r\n") + frame_.rows[i];
  if (frame_.rows.empty()) return out;
  return out + up(frame_.rows.size() - 1 - frame_.cursor_row) + "\r" + frame_.before_cursor;
}

std::string Screen::draw(PromptFrame frame) {
  if (frame == frame_) return "";
  const PromptFrame old = std::exchange(frame_, std::move(frame));
  // Rows that are new or gone move everything below them: then all of it is painted again.
  if (old.rows.size() != frame_.rows.size()) return up(old.cursor_row) + std::string(kClearBelow) + paint();
  std::string out;
  size_t at = old.cursor_row;
  const auto go_to = [&](size_t row) {
    out += row < at ? up(at - row) : down(row - at);
    at = row;
  };
  for (size_t i = 0; i < frame_.rows.size(); ++i) {
    if (frame_.rows[i] == old.rows[i]) continue;
    go_to(i);
    out += "\r" + frame_.rows[i] + std::string(kClearRight);
  }
  go_to(frame_.cursor_row);
  return out + "\r" + frame_.before_cursor;
}

std::string Screen::print(std::string_view text) {
  if (text.empty()) return "";
  std::string out = to_prompt_top();
  // The unfinished row is written again from its beginning: no column is ever computed.
  if (!unfinished_.empty()) out += up(1);
  const std::string all = unfinished_ + with_returns(text);
  out += std::string(kClearBelow) + all;
  const size_t line = all.rfind('\n');
  const std::string_view last = std::string_view(all).substr(line == std::string::npos ? 0 : line + 1);
  unfinished_ = last.substr(break_rows(last, width_).back().begin);
  if (!unfinished_.empty()) out += "\r\n";
  return out + paint();
}

std::string Screen::print_line(std::string_view line) {
  const std::string ended = end_line();
  return ended + print(std::string(line) + "\n");
}

std::string Screen::resize(int width) {
  // Rows wider than the new width stand on several rows now. The mark at the left is never the reason, and
  // the hint is the only other row without a text of its own.
  const auto rows_of = [&](std::string_view row) { return break_rows(row, width).size(); };
  size_t above = 0;
  for (size_t i = 0; i < frame_.cursor_row; ++i) above += rows_of(frame_.rows[i]);
  above += rows_of(frame_.before_cursor) - 1;
  // Where the terminal now breaks the unfinished line nobody knows: what follows begins a row of its own.
  unfinished_.clear();
  width_ = width;
  frame_ = {};
  return up(above) + std::string(kClearBelow);
}

std::string Screen::take_prompt_away() {
  std::string out = to_prompt_top() + std::string(kClearBelow);
  frame_ = {};
  return out;
}

}  // namespace bitctl
