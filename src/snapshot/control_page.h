/* The control page: 4 KiB of shared memory in which trainer, writer and supervisor agree on snapshots.
 *
 * An arena generation ("gen") has two slots; a slot holds one complete snapshot: the images of all files,
 * laid out as safetensors. Two banks exist, so that an outgrown generation lives on until the next has a
 * READY slot; generation g uses bank g % 2.
 *
 *     FREE -> WRITING -> READY            by the trainer, inside run.checkpoint()
 *     READY -> PERSISTING -> DURABLE      by the writer
 *     FREE|DURABLE -> LOADING -> DURABLE  by the writer, when a checkpoint is read back for a resume
 *
 * READY, PERSISTING and DURABLE are complete and restorable. WRITING is discarded once the trainer's tree is
 * dead. A DURABLE slot may be written again; a READY one only where the other slot is READY too (the older
 * goes).
 *
 * Each rank of a distributed training has a page of its own for its slots and its step. What all ranks are
 * asked for, and what goes on, stands on rank 0's, which every rank maps.
 *
 * Every process reads each field once, with the functions below, and checks it against its own sizes: the
 * peer may have crashed in the middle of a store. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BITCTL_CONTROL_MAGIC UINT64_C(0x3154524c54434f42)
#define BITCTL_CONTROL_VERSION 3u
#define BITCTL_CONTROL_BYTES 4096u
#define BITCTL_BANKS 2
#define BITCTL_SLOTS 2
#define BITCTL_MAX_FILES 4

enum bitctl_slot_state {
  BITCTL_SLOT_FREE = 0,
  BITCTL_SLOT_WRITING = 1,
  BITCTL_SLOT_READY = 2,
  BITCTL_SLOT_PERSISTING = 3,
  BITCTL_SLOT_DURABLE = 4,
  BITCTL_SLOT_LOADING = 5,
  BITCTL_SLOT_BROKEN = 6, /* a load failed; may be written again like FREE */
};

/* What several ranks are asked for, until rank 0 has chosen the step for it: bits of `asked`. */
enum bitctl_asked { BITCTL_ASKED_SAVE = 1, BITCTL_ASKED_STOP = 2 };

typedef struct bitctl_slot {
  uint32_t state; /* enum bitctl_slot_state; the last field stored, the first one read */
  uint32_t gen;
  uint64_t seq; /* grows with every snapshot of the run; the newest wins */
  uint64_t step;
  uint32_t attempt;
  uint32_t final;                  /* 1: the snapshot of run.finish() */
  uint64_t used[BITCTL_MAX_FILES]; /* bytes of each file, header included */
  uint64_t loaded;     /* LOADING: bytes of the slot, from its start, that are read and verified */
  uint64_t world_size; /* of how many ranks the step is: each has a slot of it, or there is no checkpoint */
} bitctl_slot;

typedef struct bitctl_control {
  uint64_t magic;
  uint32_t version;
  uint32_t bytes;        /* sizeof(bitctl_control) */
  uint64_t seq;          /* the last sequence number given out */
  uint64_t step;         /* completed optimizer steps, as the trainer last said */
  uint64_t save_at_step; /* take a snapshot at the first step >= this; 0: no request */
  uint64_t stop_at_step; /* and then leave; 0: no request */
  uint64_t persist_ns;   /* how long the last save took, told by the writer */
  uint64_t step_ns;      /* CLOCK_MONOTONIC when `step` was told */
  uint64_t phase_ms;     /* what goes on may take so long; 0: it was not said */
  uint32_t phase;        /* what goes on, as numbered by watch/stall_watch.h */
  uint32_t phase_count;  /* grows with every change of it; stored last */
  uint32_t asked;        /* enum bitctl_asked */
  uint32_t world_size;   /* ranks that save: the highest one that has said so, and those below it; 0: one */
  uint32_t leaving;      /* of them, those that have met a stop */
  uint32_t unused;
  bitctl_slot slots[BITCTL_BANKS][BITCTL_SLOTS];
} bitctl_control;

static inline uint32_t bitctl_load32(const uint32_t* p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline uint64_t bitctl_load64(const uint64_t* p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void bitctl_store32(uint32_t* p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline void bitctl_store64(uint64_t* p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }

/* 1 where the slot was in `from` and is now in `to`. */
static inline int bitctl_slot_move(bitctl_slot* slot, uint32_t from, uint32_t to) {
  return __atomic_compare_exchange_n(&slot->state, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static inline int bitctl_slot_is_complete(uint32_t state) {
  return state == BITCTL_SLOT_READY || state == BITCTL_SLOT_PERSISTING || state == BITCTL_SLOT_DURABLE;
}

#ifdef __cplusplus
}
#endif
