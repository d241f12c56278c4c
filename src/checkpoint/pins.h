// Steps that a person wants to keep: each is an empty file checkpoints/.pin-step-…, beside the steps and not
// in them, so that a pin outlives a step that is written anew, is made and taken away in one system call, and
// is seen by a running writer without a word to it. Retention looks at it under the exclusive .lock.
#pragma once

#include <cstdint>
#include <string>

#include "base/file_ops.h"
#include "base/result.h"

namespace bitctl {

// Durable on return; a step pinned twice is pinned. The caller holds .lock, shared, and has seen the step.
Status pin_step(const std::string& checkpoints, uint64_t step, FileOps& ops = system_file_ops());

// A step that is not pinned is no error.
Status unpin_step(const std::string& checkpoints, uint64_t step, FileOps& ops = system_file_ops());

// True also where it cannot be told, since what is not pinned may be deleted.
bool is_pinned(const std::string& checkpoints, uint64_t step);

}  // namespace bitctl
