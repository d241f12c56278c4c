#include "base/columns.h"

#include <utf8proc.h>

#include <algorithm>

#include "base/visible_text.h"

namespace bitctl {
namespace {

constexpr char32_t kEmojiSelector = 0xfe0f;
constexpr size_t kMaxMarksPerColumn = 4;

// Moves `at` past one code point and tells the columns it takes.
size_t take_columns(std::string_view text, size_t& at) {
  char32_t c = 0;
  const size_t length = decode_utf8(text, at, c);
  at += std::max<size_t>(1, length);
  if (length == 0) return 1;
  // Terminals that show the emoji form of the character before it take a second column for it.
  if (c == kEmojiSelector) return 1;
  return static_cast<size_t>(std::max(0, ::utf8proc_charwidth(static_cast<utf8proc_int32_t>(c))));
}

}  // namespace

size_t columns_of(std::string_view text) {
  size_t width = 0;
  for (size_t at = 0; at < text.size();) width += take_columns(text, at);
  return width;
}

std::string clipped(std::string_view text, size_t columns) {
  if (columns == 0) return {};
  size_t width = 0, marks = 0, fits = 0;  // fits: the longest part that leaves a column for "…"
  for (size_t at = 0; at < text.size();) {
    const size_t taken = take_columns(text, at);
    width += taken;
    marks += taken == 0;
    if (width > columns || marks > kMaxMarksPerColumn * columns)
      return std::string(text.substr(0, fits)) + "…";
    if (width < columns) fits = at;
  }
  return std::string(text);
}

}  // namespace bitctl
