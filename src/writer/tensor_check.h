// The libtorch look at every tensor before a commit.
#pragma once

#include "checkpoint/commit.h"
#include "engine_api/engine_api.h"

namespace bitctl {

// Views each tensor through the engine: a dtype or shape that does not fit its bytes is refused with the
// engine's own message (Error::invalid); tensors with a NaN or an infinity are named "file:tensor". Without
// an engine (null) shapes are held against sizes by the reader's own rules, and the findings say "none".
Result<TensorFindings> check_with_engine(const bitctl_engine* engine, const std::vector<FileImage>& files);

}  // namespace bitctl
