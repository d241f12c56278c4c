// The Python that `train` takes in a folder, its torch, and the engine module beside bitctl.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "doctor/finding.h"

namespace bitctl {

// Asks the interpreter for its version and its torch's, without importing that; at most 3 s. From the main
// thread only: it starts a process. `torch` is left empty where there is none.
Finding check_python(const std::optional<std::string>& interpreter, std::string& torch);

// Loads the engine module, which takes up to 1.5 s.
Finding check_engine(const std::string& module, const std::string& torch);

}  // namespace bitctl
