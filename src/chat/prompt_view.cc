#include "chat/prompt_view.h"

#include <fmt/format.h>

#include <algorithm>

#include "chat/graphemes.h"

namespace bitctl {
namespace {

constexpr std::string_view kMark = "> ";
constexpr std::string_view kIndent = "  ";

bool has_mark(int terminal_width) { return terminal_width > static_cast<int>(kMark.size()) + 1; }
std::string_view mark(int terminal_width) { return has_mark(terminal_width) ? kMark : ""; }
std::string_view indent(int terminal_width) { return has_mark(terminal_width) ? kIndent : ""; }

// As much of the text as fits.
std::string_view cut(std::string_view text, int width) {
  return text.substr(0, break_rows(text, width)[0].end);
}

std::string hint_row(const PromptStyle& style, const std::string& hint) {
  const std::string_view fits = cut(hint, text_width(style.width));
  return style.faint ? faint(fits) : std::string(fits);
}

void add_hint(PromptFrame& frame, const PromptStyle& style, std::string_view hint) {
  if (!hint.empty() && style.height > 2)
    frame.rows.push_back(std::string(indent(style.width)) + hint_row(style, shown(hint)));
}

}  // namespace

std::string faint(std::string_view text) { return fmt::format("\x1b[2m{}\x1b[22m", text); }

int text_width(int terminal_width) {
  return std::max(terminal_width - static_cast<int>(mark(terminal_width).size()) - 1, 1);
}

PromptFrame prompt_frame(std::string_view text, size_t cursor, const PromptStyle& style) {
  const int width = text_width(style.width);
  PromptFrame frame;
  if (text.empty()) {
    const std::string hint = fmt::format("Type a message... ({} to send)", style.send_keys);
    frame.rows = {std::string(mark(style.width)) + hint_row(style, hint)};
    frame.before_cursor = mark(style.width);
    add_hint(frame, style, style.hint);
    return frame;
  }
  const auto rows = break_rows(text, width);
  const size_t cursor_row = row_of(rows, cursor);
  // One row is left to what stands above the prompt, one to the hint below it.
  const auto room = static_cast<size_t>(std::max(style.height - 2, 1));
  const size_t first =
      rows.size() <= room ? 0 : std::min(cursor_row - std::min(cursor_row, room / 2), rows.size() - room);
  const size_t last = std::min(first + room, rows.size());
  for (size_t i = first; i < last; ++i) {
    const std::string_view left = i == 0 ? mark(style.width) : indent(style.width);
    frame.rows.push_back(std::string(left) + shown(text.substr(rows[i].begin, rows[i].end - rows[i].begin)));
    if (i == cursor_row)
      frame.before_cursor = std::string(left) + shown(text.substr(rows[i].begin, cursor - rows[i].begin));
  }
  frame.cursor_row = cursor_row - first;
  const bool many_lines = text.find('\n') != std::string_view::npos;
  add_hint(frame, style,
           !style.hint.empty() ? style.hint
           : many_lines        ? fmt::format("({} to send)", style.send_keys)
                               : "");
  return frame;
}

}  // namespace bitctl
