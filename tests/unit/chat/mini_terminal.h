// A terminal small enough to be right: what the bytes of a Screen leave on it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/visible_text.h"
#include "chat/graphemes.h"

namespace bitctl {

class MiniTerminal {
 public:
  MiniTerminal(size_t width, size_t height) : width_(width), grid_(height, Row(width)) {}

  void write(std::string_view bytes) {
    for (size_t at = 0; at < bytes.size();) {
      if (bytes[at] == '\r') {
        column_ = 0;
        ++at;
      } else if (bytes[at] == '\n') {
        line_feed();
        ++at;
      } else if (bytes[at] == '\x1b') {
        at = escape(bytes, at + 2);
      } else {
        const size_t next = next_grapheme(bytes, at);
        put(bytes.substr(at, next - at));
        at = next;
      }
    }
  }

  // Every row that was ever shown, without blanks at the end.
  std::vector<std::string> rows() const {
    std::vector<std::string> all = scrolled_;
    for (const auto& row : grid_) all.push_back(as_text(row));
    while (!all.empty() && all.back().empty()) all.pop_back();
    return all;
  }

  size_t cursor_row() const { return scrolled_.size() + row_; }
  size_t cursor_column() const { return column_; }
  size_t bytes_put() const { return bytes_put_; }

 private:
  using Row = std::vector<std::string>;  // one cell each; "" blank, "\0" the right half of a wide one

  static std::string as_text(const Row& row) {
    std::string text;
    for (const auto& cell : row) text += cell.empty() ? " " : cell[0] == '\0' ? "" : cell;
    const size_t end = text.find_last_not_of(' ');
    return end == std::string::npos ? "" : text.substr(0, end + 1);
  }

  void line_feed() {
    if (++row_ < grid_.size()) return;
    scrolled_.push_back(as_text(grid_.front()));
    grid_.erase(grid_.begin());
    grid_.emplace_back(width_);
    row_ = grid_.size() - 1;
  }

  void put(std::string_view grapheme) {
    const auto cells = static_cast<size_t>(cell_of(grapheme).width);
    if (column_ + cells > width_) {
      column_ = 0;
      line_feed();
    }
    grid_[row_][column_] = grapheme;
    if (cells == 2) grid_[row_][column_ + 1] = std::string(1, '\0');
    column_ += cells;
    bytes_put_ += grapheme.size();
  }

  size_t escape(std::string_view bytes, size_t at) {
    size_t number = 0;
    while (bytes[at] >= '0' && bytes[at] <= '9')
      number = number * 10 + static_cast<size_t>(bytes[at++] - '0');
    const size_t by = std::max<size_t>(number, 1);
    switch (bytes[at]) {
      case 'A':
        row_ -= std::min(by, row_);
        break;
      case 'B':
        row_ = std::min(row_ + by, grid_.size() - 1);
        break;
      case 'J':
        for (size_t r = row_ + 1; r < grid_.size(); ++r) grid_[r] = Row(width_);
        [[fallthrough]];
      case 'K':
        for (size_t c = std::min(column_, width_); c < width_; ++c) grid_[row_][c].clear();
        break;
      default:
        break;  // colours
    }
    return at + 1;
  }

  size_t width_;
  std::vector<Row> grid_;
  std::vector<std::string> scrolled_;
  size_t row_ = 0;
  size_t column_ = 0;
  size_t bytes_put_ = 0;
};

}  // namespace bitctl
