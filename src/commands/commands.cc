#include "commands/commands.h"

#include <cstdio>

#include "base/text.h"
#include "base/visible_text.h"

namespace bitctl {

int complain(const Error& error, int code) {
  for (const std::string& line : split(visible_text(error.message, Newlines::keep), '\n'))
    std::fprintf(stderr, "bitctl: %s\n", line.c_str());
  return code;
}

}  // namespace bitctl
