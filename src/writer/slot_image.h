// From a slot of shared memory to the image that is committed. The trainer may have crashed in the middle of
// anything, so every size is read once and checked against the arena's own layout.
#pragma once

#include "base/result.h"
#include "checkpoint/arena.h"
#include "checkpoint/commit.h"

namespace bitctl {

// `memory` is the slot (layout.slot_bytes() bytes). Error::invalid or damaged where the slot is no snapshot.
// Step, epoch, metrics and side files come from the metadata of training.safetensors (key "bitctl"); whether
// a file is frozen from its own ("bitctl.frozen").
Result<StepImage> image_of_slot(const ArenaLayout& layout, const char* memory, const bitctl_slot& slot,
                                const std::string& run_id, const std::string& checkpoints);

}  // namespace bitctl
