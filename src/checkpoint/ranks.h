// The ranks of a distributed training: each has a control page and arenas of its own, and what all of them
// took after the same step is one checkpoint. A training of one process is rank 0 alone.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/arena.h"

namespace bitctl {

// A rank's control page as one reading saw it.
struct RankView {
  uint64_t step = 0;  // completed, as the rank last said
  std::vector<SlotView> slots;
};
using RankViews = std::map<uint32_t, RankView>;

// One checkpoint: the slots of rank 0, 1, … world_size - 1, all complete, of the same step of the same
// attempt.
struct SlotSet {
  std::vector<SlotView> slots;  // never empty

  const SlotView& of_rank_0() const { return slots.front(); }
  uint64_t step() const { return slots.front().step; }
  bool is_final() const { return slots.front().final; }
};

// By the order in which rank 0 took them; nothing where there is none.
std::optional<SlotSet> newest_complete_set(const RankViews& ranks);
// Of those that are not durable yet.
std::optional<SlotSet> newest_waiting_set(const RankViews& ranks);

// READY slots that are part of no set: at least one rank has not taken that step.
std::vector<SlotView> unmatched(const RankViews& ranks);
// Whether one can still become part of a set: it cannot once a rank has gone past that step without taking
// it.
bool may_be_matched(const SlotView& slot, const RankViews& ranks);
// "1 of 2 ranks have not taken it: rank 1 is at step 21"
std::string who_lacks(const SlotView& slot, const RankViews& ranks);

// The pages of all ranks, mapped. Rank 0's is always there.
class RankPages {
 public:
  void add(uint32_t rank, ControlPage page) { pages_[rank] = std::move(page); }
  bool contains(uint32_t rank) const { return pages_.contains(rank); }
  bitctl_control& of(uint32_t rank) const { return *pages_.at(rank); }
  // Where requests, phase and persist time stand.
  bitctl_control& run() const { return of(0); }
  size_t count() const { return pages_.size(); }

  RankViews look() const;
  std::vector<SlotView> slots() const;  // of all ranks
  bitctl_slot& slot_of(const SlotView& view) const { return of(view.rank).slots[view.bank][view.index]; }
  // True where the slot was in `from`.
  bool move(const SlotView& view, uint32_t from, uint32_t to) const {
    return bitctl_slot_move(&slot_of(view), from, to) != 0;
  }
  // Frees a READY slot that still holds what was seen there.
  bool release(const SlotView& seen) const;
  // After the trainer's tree is dead: what is WRITING, and what not every rank has taken, is discarded.
  void discard_unfinished() const;

 private:
  std::map<uint32_t, ControlPage> pages_;
};

}  // namespace bitctl
