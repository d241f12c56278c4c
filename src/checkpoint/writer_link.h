// What supervisor and writer say to each other over their inherited socket pair, as JSON messages with a
// "type".
//
// To the writer:
//   rank {rank} + one descriptor              the control page of a rank above 0
//   arena {rank, gen, files} + two descriptors     allocate and seal them, map them
//   drop_arena {rank, gen}                    unmap
//   attempt {number, leader, resumed_from?}   a trainer has been started; pid of its session; the step that
//                                             it was loaded from, by a writer before this one
//   trainer_dead {}                           its whole tree is gone
//   load {step, path, gens}                   read a checkpoint into each rank's slot 0, already LOADING
//   roll_back {before}                        forget all but the newest finite snapshot below that step
//   shutdown {}                               persist what is READY, then leave
// From the writer:
//   ready {tensor_check, reason?}             the engine is there, or "none" and why
//   arena_ready {rank, gen} | arena_failed {rank, gen, reason}
//   started {step}
//   committed {step, bytes, written, ms, unchanged, non_finite, tensor_check}    before retention
//   retained {deleted, reason?}               reason: no room on the disk, more went than the policy lets go
//   failed {step, reason, errno, final}       final: the image itself is wrong, it is not tried again
//   reader_in_the_way {step, reader}          committed all the same; nothing was deleted
//   loaded {step} | load_failed {step, damaged, reason, aside?}
//   rolled_back {from, step?, aside}          newer checkpoints are kept under these paths
//   finished {step, path} | finish_failed {step, reason}
#pragma once

#include <string>

#include "base/result.h"
#include "base/strict_json.h"
#include "checkpoint/retention.h"

namespace bitctl {

// Descriptors that the writer inherits, in this order from 3 on.
enum WriterFd : int { kWriterSocketFd = 3, kWriterControlFd, kWriterWakeFd, kWriterLockFd, kWriterFdEnd };

// The writer's one argument, as JSON.
struct WriterOptions {
  std::string run_folder;
  std::string engine;     // path of the module
  std::string isolation;  // Isolation::description() as text
  int supervisor = 0;     // pid
  RetentionPolicy retention;
  double writer_limit = 60;  // seconds
};

std::string to_text(const WriterOptions& options);
Result<WriterOptions> writer_options_from(const std::string& text);

}  // namespace bitctl
