/* libbitctl_snapshot: what the trainer's side of the control page needs from C, called through ctypes. No
 * Python.h, no torch, no allocation; ctypes releases the GIL around every call. The caller is the trainer's
 * one snapshot thread. */
#pragma once

#include "snapshot/control_page.h"

#ifdef __cplusplus
extern "C" {
#endif

#define BITCTL_SNAPSHOT_ABI 4u

typedef struct bitctl_copy {
  uint64_t to; /* bytes from the copy's base */
  const void* from;
  size_t bytes;
} bitctl_copy;

uint32_t bitctl_snapshot_abi(void);

/* 0 where `page` is a control page of this version, else -1. */
int bitctl_control_check(const bitctl_control* page);

/* Claims a slot of generation `gen` for the snapshot of `step`: its index, now WRITING; or -1 where both are
 * in use (deferred: try again at the next step boundary). Never takes the only complete slot, and never a
 * READY one while the other is being persisted. `world_size`: of how many ranks the step is. */
int bitctl_snapshot_begin(bitctl_control* page, uint32_t gen, uint64_t step, uint32_t attempt,
                          uint32_t world_size);

/* Copies every item to base + its `to`; the ranges do not overlap. When it returns, every byte is there. A
 * large copy may be shared with a second thread, which is started once and parked. */
void bitctl_snapshot_copy(void* base, const bitctl_copy* items, size_t count);
/* From here on by so many threads (1 or 2), with streaming or plain stores; 0 threads: as is fastest. */
void bitctl_snapshot_force(int threads, int streaming);

/* Enters every page of a mapping into this process's page tables, so that the first copy meets no page fault:
 * 0; -1 with errno (EINVAL before Linux 5.14). Takes 0.1 s a GiB or more: for a thread of its own. */
int bitctl_snapshot_populate(void* memory, size_t bytes);

/* WRITING -> READY, then wakes the writer through the eventfd. `used`: bytes of each of `files` files. 0; -1
 * where the slot is not WRITING any more: the supervisor took its writer for dead, and there is no snapshot.
 */
int bitctl_snapshot_commit(bitctl_control* page, uint32_t gen, int slot, const uint64_t* used, size_t files,
                           int final_one, int wake_fd);

/* WRITING -> FREE. */
void bitctl_snapshot_abandon(bitctl_control* page, uint32_t gen, int slot);

/* Waits until a slot that is being loaded holds at least `bytes` verified bytes: 1; 0 after `timeout_ms`; -1
 * where the load failed. */
int bitctl_snapshot_await(const bitctl_control* page, uint32_t gen, int slot, uint64_t bytes, int timeout_ms);

void bitctl_control_set_step(bitctl_control* page, uint64_t step);
/* Returns the new count of phases. */
uint32_t bitctl_control_enter(bitctl_control* page, uint32_t phase, uint64_t milliseconds);
uint64_t bitctl_control_save_at(const bitctl_control* page);
uint64_t bitctl_control_stop_at(const bitctl_control* page);
/* The request that was met is taken back, unless a later one has replaced it. */
void bitctl_control_clear_save_at(bitctl_control* page, uint64_t met);
uint64_t bitctl_control_persist_ns(const bitctl_control* page);

/* For several ranks, on rank 0's page. They must save, and leave, at the same step; a rank that has completed
 * `step` knows that none has completed step + 1 without it. */

/* All take a snapshot at the first step >= `step`; the latest such step counts. */
void bitctl_control_save_by(bitctl_control* page, uint64_t step);
/* Rank 0's, at each step boundary: what was asked for is done one step after `step`. */
void bitctl_control_agree(bitctl_control* page, uint64_t step);
/* `rank` and those below it have state of their own in every snapshot from here on. */
void bitctl_control_join(bitctl_control* page, uint32_t rank);
/* Ranks that have; at least 1. */
uint32_t bitctl_control_world_size(const bitctl_control* page);
/* A rank that has met a stop waits for the others: launchers kill what is left when the first one goes. 1; 0
 * after `timeout_ms`. */
int bitctl_control_leave(bitctl_control* page, int timeout_ms);

#ifdef __cplusplus
}
#endif
