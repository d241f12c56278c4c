// The last Python traceback in the text that a trainer wrote: for scripts that tell bitctl nothing.
#pragma once

#include <string>
#include <string_view>

namespace bitctl {

struct Traceback {
  std::string exception;       // "ValueError: the loss function is missing"; empty where there is none
  std::string exception_type;  // "ValueError"
  std::string frame;  // "train.py:31 in main", the innermost of the user's own files where there is one
};

Traceback last_traceback(std::string_view text);

}  // namespace bitctl
