// Reading a step back into the arena, verified on the way.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "checkpoint/arena.h"
#include "checkpoint/catalog.h"

namespace bitctl {

// The arena that this checkpoint's files fill exactly.
Result<ArenaLayout> layout_of(const Manifest& manifest, uint32_t gen);

// Opens the files under a shared lock on <checkpoints>/.lock, reads them into the slot's memory and checks
// every digest against the manifest. `slot` must be LOADING: its watermark follows the verified bytes, used[]
// is set. Error::damaged names the file and the tensor.
Status load_step(const StepFolder& folder, const Manifest& manifest, const ArenaLayout& layout, char* memory,
                 bitctl_slot* slot, Duration lock_limit = std::chrono::seconds(30));

}  // namespace bitctl
