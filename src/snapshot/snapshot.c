#define _GNU_SOURCE
#include "snapshot/snapshot.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

static bitctl_slot* bank_of(bitctl_control* page, uint32_t gen) { return page->slots[gen % BITCTL_BANKS]; }

static const bitctl_slot* slot_at(const bitctl_control* page, uint32_t gen, int slot) {
  return &page->slots[gen % BITCTL_BANKS][slot];
}

uint32_t bitctl_snapshot_abi(void) { return BITCTL_SNAPSHOT_ABI; }

int bitctl_control_check(const bitctl_control* page) {
  return page->magic == BITCTL_CONTROL_MAGIC && page->version == BITCTL_CONTROL_VERSION &&
                 page->bytes == sizeof(bitctl_control)
             ? 0
             : -1;
}

/* Which slot may be written: free ones first, then a durable one, then the older of two ready ones. */
static int choose(const bitctl_slot* bank, uint32_t* state) {
  int best = -1, best_rank = 0;
  uint32_t states[BITCTL_SLOTS];
  for (int i = 0; i < BITCTL_SLOTS; ++i) states[i] = bitctl_load32(&bank[i].state);
  for (int i = 0; i < BITCTL_SLOTS; ++i) {
    const uint32_t other = states[1 - i];
    int rank = 0;
    if (states[i] == BITCTL_SLOT_FREE || states[i] == BITCTL_SLOT_BROKEN) rank = 3;
    if (states[i] == BITCTL_SLOT_DURABLE && other != BITCTL_SLOT_WRITING && other != BITCTL_SLOT_LOADING)
      rank = 2;
    if (states[i] == BITCTL_SLOT_READY && other == BITCTL_SLOT_READY) rank = 1;
    if (rank > best_rank || (rank == best_rank && rank > 0 && bank[i].seq < bank[best].seq)) {
      best = i;
      best_rank = rank;
    }
  }
  if (best >= 0) *state = states[best];
  return best;
}

int bitctl_snapshot_begin(bitctl_control* page, uint32_t gen, uint64_t step, uint32_t attempt,
                          uint32_t world_size) {
  bitctl_slot* bank = bank_of(page, gen);
  /* The writer may take a READY slot between the choice and the move; then the choice is made again. */
  for (int tries = 0; tries < 8; ++tries) {
    uint32_t from = 0;
    const int chosen = choose(bank, &from);
    if (chosen < 0) return -1;
    bitctl_slot* slot = &bank[chosen];
    if (!bitctl_slot_move(slot, from, BITCTL_SLOT_WRITING)) continue;
    bitctl_store32(&slot->gen, gen);
    bitctl_store64(&slot->seq, __atomic_add_fetch(&page->seq, 1, __ATOMIC_ACQ_REL));
    bitctl_store64(&slot->step, step);
    bitctl_store32(&slot->attempt, attempt);
    bitctl_store32(&slot->final, 0);
    bitctl_store64(&slot->world_size, world_size);
    return chosen;
  }
  return -1;
}

int bitctl_snapshot_populate(void* memory, size_t bytes) {
  /* In steps: who maps or unmaps something meanwhile waits for one of them at most. */
  const size_t step = (size_t)16 << 20;
  for (size_t done = 0; done < bytes; done += step) {
    const size_t now = bytes - done < step ? bytes - done : step;
    int rc = 0;
    while ((rc = madvise((char*)memory + done, now, MADV_POPULATE_WRITE)) != 0 && errno == EINTR) {
    }
    if (rc != 0) return -1;
  }
  return 0;
}

static const struct timespec kPause = {0, 200 * 1000};

static void wake(int wake_fd) {
  const uint64_t one = 1;
  if (wake_fd >= 0 && write(wake_fd, &one, sizeof one) != (ssize_t)sizeof one) {
    /* A full counter means that the writer has been woken already. */
  }
}

int bitctl_snapshot_commit(bitctl_control* page, uint32_t gen, int slot, const uint64_t* used, size_t files,
                           int final_one, int wake_fd) {
  bitctl_slot* s = &bank_of(page, gen)[slot];
  for (size_t i = 0; i < BITCTL_MAX_FILES; ++i) bitctl_store64(&s->used[i], i < files ? used[i] : 0);
  bitctl_store32(&s->final, final_one ? 1 : 0);
  if (!bitctl_slot_move(s, BITCTL_SLOT_WRITING, BITCTL_SLOT_READY)) return -1;
  wake(wake_fd);
  return 0;
}

void bitctl_snapshot_abandon(bitctl_control* page, uint32_t gen, int slot) {
  bitctl_slot_move(&bank_of(page, gen)[slot], BITCTL_SLOT_WRITING, BITCTL_SLOT_FREE);
}

int bitctl_snapshot_await(const bitctl_control* page, uint32_t gen, int slot, uint64_t bytes,
                          int timeout_ms) {
  const bitctl_slot* s = slot_at(page, gen, slot);
  for (int64_t waited_us = 0;; waited_us += 200) {
    const uint32_t state = bitctl_load32(&s->state);
    if (bitctl_slot_is_complete(state)) return 1;
    if (state != BITCTL_SLOT_LOADING) return -1;
    if (bitctl_load64(&s->loaded) >= bytes) return 1;
    if (waited_us / 1000 >= timeout_ms) return 0;
    nanosleep(&kPause, NULL);
  }
}

void bitctl_control_set_step(bitctl_control* page, uint64_t step) {
  struct timespec now;
  if (bitctl_load64(&page->step) == step) return; /* the same step told twice is no progress */
  clock_gettime(CLOCK_MONOTONIC, &now);
  bitctl_store64(&page->step_ns, (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec);
  bitctl_store64(&page->step, step);
}
uint32_t bitctl_control_enter(bitctl_control* page, uint32_t phase, uint64_t milliseconds) {
  bitctl_store64(&page->phase_ms, milliseconds);
  bitctl_store32(&page->phase, phase);
  return __atomic_add_fetch(&page->phase_count, 1, __ATOMIC_ACQ_REL);
}
uint64_t bitctl_control_save_at(const bitctl_control* page) { return bitctl_load64(&page->save_at_step); }
uint64_t bitctl_control_stop_at(const bitctl_control* page) { return bitctl_load64(&page->stop_at_step); }
void bitctl_control_clear_save_at(bitctl_control* page, uint64_t met) {
  __atomic_compare_exchange_n(&page->save_at_step, &met, 0, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
uint64_t bitctl_control_persist_ns(const bitctl_control* page) { return bitctl_load64(&page->persist_ns); }

void bitctl_control_save_by(bitctl_control* page, uint64_t step) {
  uint64_t before = bitctl_load64(&page->save_at_step);
  while (before < step && !__atomic_compare_exchange_n(&page->save_at_step, &before, step, 0,
                                                       __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
  }
}

void bitctl_control_agree(bitctl_control* page, uint64_t step) {
  if (bitctl_load32(&page->asked) == 0) return;
  const uint32_t asked = __atomic_exchange_n(&page->asked, 0, __ATOMIC_ACQ_REL);
  if (asked & BITCTL_ASKED_SAVE) bitctl_control_save_by(page, step + 1);
  if (asked & BITCTL_ASKED_STOP) bitctl_store64(&page->stop_at_step, step + 1);
}

void bitctl_control_join(bitctl_control* page, uint32_t rank) {
  uint32_t before = bitctl_load32(&page->world_size);
  while (before < rank + 1 && !__atomic_compare_exchange_n(&page->world_size, &before, rank + 1, 0,
                                                           __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
  }
}

uint32_t bitctl_control_world_size(const bitctl_control* page) {
  const uint32_t ranks = bitctl_load32(&page->world_size);
  return ranks > 1 ? ranks : 1;
}

int bitctl_control_leave(bitctl_control* page, int timeout_ms) {
  __atomic_add_fetch(&page->leaving, 1, __ATOMIC_ACQ_REL);
  for (int64_t waited_us = 0; bitctl_load32(&page->leaving) < bitctl_control_world_size(page);
       waited_us += 200) {
    if (waited_us / 1000 >= timeout_ms) return 0;
    nanosleep(&kPause, NULL);
  }
  return 1;
}
