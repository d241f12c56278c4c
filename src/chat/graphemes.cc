#include "chat/graphemes.h"

#include <utf8proc.h>

#include <algorithm>

#include "base/visible_text.h"

namespace bitctl {
namespace {

constexpr int kTabCells = 4;
constexpr char32_t kEmojiPresentation = 0xfe0f;

bool is_ascii(char c) { return static_cast<unsigned char>(c) < 0x80; }

size_t read_code_point(std::string_view text, size_t at, char32_t& code_point) {
  const size_t length = decode_utf8(text, at, code_point);
  return std::max<size_t>(length, 1);
}

}  // namespace

size_t next_grapheme(std::string_view text, size_t at) {
  if (at >= text.size()) return text.size();
  // Nothing joins two ASCII characters: most of a text needs no table.
  if (is_ascii(text[at]) && (at + 1 == text.size() || is_ascii(text[at + 1]))) return at + 1;
  char32_t previous = 0;
  at += read_code_point(text, at, previous);
  utf8proc_int32_t state = 0;
  while (at < text.size()) {
    char32_t next = 0;
    const size_t length = read_code_point(text, at, next);
    if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(previous),
                                         static_cast<utf8proc_int32_t>(next), &state))
      break;
    previous = next;
    at += length;
  }
  return at;
}

size_t previous_grapheme(std::string_view text, size_t at) {
  if (at == 0) return 0;
  // Borders can only be found forwards; a line break is always one.
  const size_t line = at >= 2 ? text.rfind('\n', at - 2) : std::string_view::npos;
  size_t before = line == std::string_view::npos ? 0 : line + 1;
  for (size_t next = before; next < at; next = next_grapheme(text, next)) before = next;
  return before;
}

Cell cell_of(std::string_view grapheme) {
  if (grapheme == "\t") return {std::string(kTabCells, ' '), kTabCells};
  Cell cell{visible_text(grapheme), 0};
  const bool is_as_it_was = cell.shown == grapheme;
  for (size_t at = 0; at < cell.shown.size();) {
    char32_t c = 0;
    at += read_code_point(cell.shown, at, c);
    cell.width += utf8proc_charwidth(static_cast<utf8proc_int32_t>(c));
    if (c == kEmojiPresentation) cell.width = 2;
  }
  if (is_as_it_was) cell.width = std::min(cell.width, 2);  // one cluster; what was made visible is several
  return cell;
}

std::string shown(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t next = next_grapheme(text, at);
    out += cell_of(text.substr(at, next - at)).shown;
    at = next;
  }
  return out;
}

int display_width(std::string_view text) {
  int width = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t next = next_grapheme(text, at);
    width += cell_of(text.substr(at, next - at)).width;
    at = next;
  }
  return width;
}

std::vector<TextRow> break_rows(std::string_view text, int width) {
  std::vector<TextRow> rows{{0, 0}};
  int used = 0;
  for (size_t at = 0; at < text.size();) {
    if (text[at] == '\n') {
      rows.push_back({at + 1, at + 1});
      used = 0;
      ++at;
      continue;
    }
    const size_t next = next_grapheme(text, at);
    const bool plain = next == at + 1 && text[at] >= 0x20 && text[at] < 0x7f;
    const int cells = plain ? 1 : cell_of(text.substr(at, next - at)).width;
    if (used + cells > width && used > 0) {
      rows.push_back({at, at});
      used = 0;
    }
    used += cells;
    rows.back().end = at = next;
  }
  return rows;
}

size_t row_of(const std::vector<TextRow>& rows, size_t at) {
  const auto after = std::upper_bound(rows.begin(), rows.end(), at,
                                      [](size_t value, const TextRow& row) { return value < row.begin; });
  return static_cast<size_t>(after - rows.begin()) - 1;
}

}  // namespace bitctl
