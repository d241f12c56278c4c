// Text as a terminal shows it: grapheme clusters, the cells they take, and the rows a text of some width
// breaks into. Everywhere here text is valid UTF-8 and positions are byte offsets on grapheme borders.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace bitctl {

size_t next_grapheme(std::string_view text, size_t at);      // text.size() at the end
size_t previous_grapheme(std::string_view text, size_t at);  // 0 at the beginning

// What is written to the terminal for one grapheme, and its cells. Tabs become spaces, and what could steer
// the terminal is made visible. Terminals that draw a joined emoji as its parts take more cells than said
// here.
struct Cell {
  std::string shown;
  int width = 0;
};
Cell cell_of(std::string_view grapheme);

std::string shown(std::string_view text);  // its cells in a row
int display_width(std::string_view text);

// One row of a text broken at '\n' and at `width` cells; the '\n' itself is in no row.
struct TextRow {
  size_t begin = 0;
  size_t end = 0;

  bool operator==(const TextRow&) const = default;
};
std::vector<TextRow> break_rows(std::string_view text, int width);

// The row in which a cursor before byte `at` stands: at a soft break, the lower one.
size_t row_of(const std::vector<TextRow>& rows, size_t at);

}  // namespace bitctl
