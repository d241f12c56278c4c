#include "engine/door.h"

#include <cstring>

#include "base/visible_text.h"

namespace bitctl::engine {

void report(bitctl_engine_error* error, std::string_view text) {
  constexpr size_t kEllipsis = 3;  // bytes of "…", which shortened() may append
  const std::string line = shortened(visible_text(text), sizeof error->text - 1 - kEllipsis);
  std::memcpy(error->text, line.c_str(), line.size() + 1);
}

std::string reason_of(const c10::Error& error) {
  const std::string text = error.what_without_backtrace();
  return text.substr(0, text.find('\n'));
}

}  // namespace bitctl::engine
