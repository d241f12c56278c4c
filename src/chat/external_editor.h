// $VISUAL, else $EDITOR, else vi, on a text.
#pragma once

#include <string>

#include "base/result.h"

namespace bitctl {

// Returns what the editor saved, without the line break that editors put at the end. Blocks until the editor
// has ended; it uses the terminal, which the caller has let go of. The text lies in a file that only its
// owner can read, and that is gone afterwards. An error where the editor cannot be started or says that it
// failed.
Result<std::string> edit_externally(const std::string& text);

}  // namespace bitctl
