// The control page, which a trainer that runs wild may overwrite at any byte, and the message that names an
// arena.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "checkpoint/ranks.h"
#include "snapshot/snapshot.h"

using namespace bitctl;

namespace {

void check(bool holds) {
  if (!holds) std::abort();
}

void look_at(bitctl_control& page) {
  const auto complete = newest_complete(page);
  for (const SlotView& slot : slots_of(page)) {
    check(slot.bank < BITCTL_BANKS && slot.index < BITCTL_SLOTS);
    if (complete && bitctl_slot_is_complete(slot.state)) check(slot.seq <= complete->seq);
  }
  // Whatever a page says of other ranks, what counts as a checkpoint is complete.
  const RankViews ranks{{0, {page.step, slots_of(page)}}};
  if (const auto set = newest_complete_set(ranks)) {
    check(set->slots.size() == set->of_rank_0().world_size && complete);
    for (const SlotView& slot : set->slots) check(bitctl_slot_is_complete(slot.state));
  }
  for (const SlotView& slot : unmatched(ranks)) check(may_be_matched(slot, ranks) || page.step > slot.step);
  // The trainer's side never takes the last complete snapshot of its bank.
  const uint32_t gen = complete ? complete->gen : 1;
  int before = 0, after = 0;
  for (const bitctl_slot& slot : page.slots[gen % BITCTL_BANKS])
    before += bitctl_slot_is_complete(slot.state);
  const int taken = bitctl_snapshot_begin(&page, gen, 1, 1, 1);
  check(taken >= -1 && taken < BITCTL_SLOTS);
  for (const bitctl_slot& slot : page.slots[gen % BITCTL_BANKS]) after += bitctl_slot_is_complete(slot.state);
  check(before - after <= 1 && (before < 2 || after >= 1));
  const uint64_t used[BITCTL_MAX_FILES] = {1, 2, 3, 4};
  if (taken >= 0) check(bitctl_snapshot_commit(&page, gen, taken, used, BITCTL_MAX_FILES, 0, -1) == 0);
  discard_unfinished(page);
  for (const SlotView& slot : slots_of(page)) check(slot.state != BITCTL_SLOT_WRITING);
}

void read_layout(std::string_view text) {
  const auto json = parse_strict_json(text);
  if (!json || !json->is_object()) return;
  const auto layout = arena_layout_from(*json);
  if (!layout) return;
  check(layout->files.size() <= BITCTL_MAX_FILES && layout->slot_bytes() <= uint64_t{1} << 46);
  check(arena_layout_from(to_json(*layout)) == *layout);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bitctl_control page{};
  std::memcpy(static_cast<void*>(&page), data, std::min(size, sizeof page));
  look_at(page);
  read_layout({reinterpret_cast<const char*>(data), size});
  return 0;
}
