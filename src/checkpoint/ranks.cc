#include "checkpoint/ranks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>

namespace bitctl {
namespace {

constexpr uint64_t kMostNamed = 4;

bool are_of_one_step(const SlotView& a, const SlotView& b) {
  return a.step == b.step && a.attempt == b.attempt && a.final == b.final && a.world_size == b.world_size;
}

// The newest slot of `rank` for the same step as `slot`, in a state that `wanted` takes.
template <typename Wanted>
const SlotView* partner(const SlotView& slot, uint32_t rank, const RankViews& ranks, Wanted wanted) {
  const auto found = ranks.find(rank);
  if (found == ranks.end()) return nullptr;
  const SlotView* best = nullptr;
  for (const SlotView& other : found->second.slots)
    if (wanted(other.state) && are_of_one_step(slot, other) && (best == nullptr || other.seq > best->seq))
      best = &other;
  return best;
}

bool is_complete(uint32_t state) { return bitctl_slot_is_complete(state) != 0; }
bool is_or_will_be_complete(uint32_t state) { return state == BITCTL_SLOT_WRITING || is_complete(state); }

// The set that a complete slot is part of.
std::optional<SlotSet> set_of(const SlotView& slot, const RankViews& ranks) {
  SlotSet set;
  for (uint32_t rank = 0; rank < slot.world_size; ++rank) {
    const SlotView* one = rank == slot.rank ? &slot : partner(slot, rank, ranks, is_complete);
    if (one == nullptr) return std::nullopt;
    set.slots.push_back(*one);
  }
  return set;
}

template <typename Wanted>
std::optional<SlotSet> newest_set(const RankViews& ranks, Wanted wanted) {
  std::optional<SlotSet> best;
  const auto rank_0 = ranks.find(0);
  if (rank_0 == ranks.end()) return best;
  for (const SlotView& slot : rank_0->second.slots) {
    if (!is_complete(slot.state) || (best && slot.seq < best->of_rank_0().seq)) continue;
    auto set = set_of(slot, ranks);
    if (set && wanted(*set)) best = std::move(set);
  }
  return best;
}

}  // namespace

std::optional<SlotSet> newest_complete_set(const RankViews& ranks) {
  return newest_set(ranks, [](const SlotSet&) { return true; });
}

std::optional<SlotSet> newest_waiting_set(const RankViews& ranks) {
  return newest_set(ranks, [](const SlotSet& set) {
    return std::any_of(set.slots.begin(), set.slots.end(),
                       [](const SlotView& s) { return s.state != BITCTL_SLOT_DURABLE; });
  });
}

std::vector<SlotView> unmatched(const RankViews& ranks) {
  std::vector<SlotView> slots;
  for (const auto& [rank, view] : ranks)
    std::copy_if(view.slots.begin(), view.slots.end(), std::back_inserter(slots), [&](const SlotView& slot) {
      return slot.state == BITCTL_SLOT_READY && !set_of(slot, ranks);
    });
  return slots;
}

bool may_be_matched(const SlotView& slot, const RankViews& ranks) {
  return std::none_of(ranks.begin(), ranks.end(), [&](const auto& entry) {
    const auto& [rank, view] = entry;
    return rank < slot.world_size && view.step > slot.step &&
           partner(slot, rank, ranks, is_or_will_be_complete) == nullptr;
  });
}

std::string who_lacks(const SlotView& slot, const RankViews& ranks) {
  std::vector<std::string> named;
  uint64_t missing = 0;
  for (uint32_t rank = 0; rank < slot.world_size; ++rank) {
    if (partner(slot, rank, ranks, is_complete) != nullptr || ++missing > kMostNamed) continue;
    const auto found = ranks.find(rank);
    named.push_back(found == ranks.end() ? fmt::format("rank {} is not there", rank)
                                         : fmt::format("rank {} is at step {}", rank, found->second.step));
  }
  if (missing > kMostNamed) named.push_back(fmt::format("{} more", missing - kMostNamed));
  return fmt::format("{} of {} ranks have not taken it: {}", missing, slot.world_size,
                     fmt::join(named, ", "));
}

RankViews RankPages::look() const {
  RankViews ranks;
  for (const auto& [rank, page] : pages_) {
    RankView& view = ranks[rank];
    // Before the slots: whoever is past a step by now has its slot of it, or will never have one.
    view.step = bitctl_load64(&page->step);
    view.slots = slots_of(*page);
    for (SlotView& slot : view.slots) slot.rank = rank;
  }
  return ranks;
}

std::vector<SlotView> RankPages::slots() const {
  std::vector<SlotView> slots;
  for (const auto& [rank, view] : look()) slots.insert(slots.end(), view.slots.begin(), view.slots.end());
  return slots;
}

bool RankPages::release(const SlotView& seen) const {
  // PERSISTING, so that no trainer takes it between the look and the move.
  if (!move(seen, BITCTL_SLOT_READY, BITCTL_SLOT_PERSISTING)) return false;
  const bool is_as_seen = bitctl_load64(&slot_of(seen).seq) == seen.seq;
  move(seen, BITCTL_SLOT_PERSISTING, is_as_seen ? BITCTL_SLOT_FREE : BITCTL_SLOT_READY);
  return is_as_seen;
}

void RankPages::discard_unfinished() const {
  for (const auto& [rank, page] : pages_) bitctl::discard_unfinished(*page);
  for (const SlotView& slot : unmatched(look())) move(slot, BITCTL_SLOT_READY, BITCTL_SLOT_FREE);
}

}  // namespace bitctl
