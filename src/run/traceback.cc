#include "run/traceback.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/text.h"

namespace bitctl {
namespace {

constexpr std::string_view kBegin = "Traceback (most recent call last):";
constexpr std::string_view kFile = "  File \"";

struct Frame {
  std::string text;
  bool is_users = false;
};

// `  File "train.py", line 31, in main`
Frame frame_from(std::string_view line) {
  const size_t name_end = line.find("\", line ", kFile.size());
  if (!line.starts_with(kFile) || name_end == std::string_view::npos) return {};
  const std::string_view file = line.substr(kFile.size(), name_end - kFile.size());
  std::string_view number = line.substr(name_end + 8);
  std::string_view function;
  if (const size_t comma = number.find(", in "); comma != std::string_view::npos) {
    function = number.substr(comma + 5);
    number = number.substr(0, comma);
  }
  constexpr std::array kForeign = {"/site-packages/", "/dist-packages/", "/lib/python3", "/bitctl/", "<"};
  const bool foreign = std::any_of(kForeign.begin(), kForeign.end(), [&](const char* part) {
    return file.find(part) != std::string_view::npos;
  });
  return {fmt::format("{}:{}{}{}", file, number, function.empty() ? "" : " in ", function), !foreign};
}

}  // namespace

Traceback last_traceback(std::string_view text) {
  Traceback found;
  const size_t begin = text.rfind(kBegin);
  if (begin == std::string_view::npos) return found;
  bool users = false;
  for (const std::string& line : split(text.substr(begin + kBegin.size()), '\n')) {
    if (line.starts_with(' ')) {
      Frame frame = frame_from(line);
      if (frame.text.empty() || (users && !frame.is_users)) continue;
      users = frame.is_users;
      found.frame = std::move(frame.text);
    } else if (!line.empty()) {
      found.exception = line;
      found.exception_type = line.substr(0, line.find(':'));
      return found;
    }
  }
  return {};  // it was cut short
}

}  // namespace bitctl
