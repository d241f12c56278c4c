#include "commands/commands.h"

#include <cstdio>

#include "base/visible_text.h"

namespace bitctl {

int complain(const Error& error, int code) {
  std::fprintf(stderr, "bitctl: %s\n", visible_text(error.message, Newlines::keep).c_str());
  return code;
}

}  // namespace bitctl
