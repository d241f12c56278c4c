// The libtorch look at every tensor before a save.
#pragma once

#include "checkpoint/commit.h"
#include "engine_api/engine_api.h"

namespace bitctl {

// Views each tensor through the engine: a dtype or shape that does not fit its bytes is refused with the
// engine's own message (Error::invalid). What looked: "torch 2.13.0+cpu"; "none" without an engine (null),
// where shapes are held against sizes by the reader's own rules.
Result<std::string> check_with_engine(const bitctl_engine* engine, const std::vector<FileImage>& files);

}  // namespace bitctl
