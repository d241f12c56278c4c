// Loads the libtorch engine module: RTLD_NOW | RTLD_LOCAL, on first use, never unloaded. It takes 0.2-1.5 s,
// so call it on a background thread. All signals are blocked around it.
#pragma once

#include <string>

#include "base/result.h"
#include "engine_api/engine_api.h"

namespace bitctl {

// Lets OpenMP's waiting threads sleep soon instead of spinning for milliseconds: beside a busy neighbour (a
// training) spinning makes a model several times slower. What the user has set in the environment stays. Call
// it first thing in main: it changes the environment, which is not safe once there are threads.
void prepare_engine_environment();

// Error::not_found where there is no module (bitctl works without), Error::invalid where it speaks another
// ABI, Error::io where it cannot be loaded (another torch, say), with the loader's reason. Thread-safe; loads
// once.
Result<const bitctl_engine*> load_engine(const std::string& path);

}  // namespace bitctl
