// From a slot of shared memory to the image that is committed. The trainer may have crashed in the middle of
// anything, so every size is read once and checked against the arena's own layout.
#pragma once

#include "base/result.h"
#include "checkpoint/arena.h"
#include "checkpoint/commit.h"

namespace bitctl {

// A rank's part of a step.
struct SlotPart {
  const ArenaLayout& layout;
  const char* memory;  // layout.slot_bytes() bytes
  const bitctl_slot& slot;
};

// Of the slots of rank 0, 1, …; there is at least one. Error::invalid or damaged where one is no snapshot.
// Metrics and side files come from the metadata of rank 0's training.safetensors (key "bitctl"); whether a
// file is frozen from its own ("bitctl.frozen").
Result<StepImage> image_of_slots(const std::vector<SlotPart>& parts, const std::string& run_id,
                                 const std::string& checkpoints);

}  // namespace bitctl
