#include "supervise/rank_arenas.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace bitctl {
namespace {

bool is_busy(uint32_t state) {
  return state == BITCTL_SLOT_WRITING || state == BITCTL_SLOT_PERSISTING || state == BITCTL_SLOT_LOADING;
}

}  // namespace

RankArenas::Generation* RankArenas::find(uint32_t gen) {
  const auto found = generations_.find(gen);
  return found == generations_.end() ? nullptr : &found->second;
}

bool RankArenas::is_in_use(uint32_t bank) const {
  const auto& slots = page_.slots[bank];
  return std::any_of(std::begin(slots), std::end(slots),
                     [](const bitctl_slot& slot) { return is_busy(bitctl_load32(&slot.state)); });
}

std::optional<uint32_t> RankArenas::free_generation(const std::optional<SlotView>& kept) const {
  const auto newest = newest_complete(page_);
  for (uint32_t gen = last_gen_ + 1; gen <= last_gen_ + BITCTL_BANKS; ++gen) {
    const uint32_t bank = gen % BITCTL_BANKS;
    if ((newest && newest->bank == bank) || (kept && kept->bank == bank)) continue;
    if (!is_in_use(bank)) return gen;
  }
  return std::nullopt;
}

std::vector<uint32_t> RankArenas::in_the_way_of(uint32_t gen) const {
  std::vector<uint32_t> gens;
  for (const auto& [old, generation] : generations_)
    if (old % BITCTL_BANKS == gen % BITCTL_BANKS) gens.push_back(old);
  return gens;
}

std::vector<uint32_t> RankArenas::outgrown_by(uint32_t gen) const {
  std::vector<uint32_t> gens;
  for (const auto& [old, generation] : generations_)
    if (old < gen && !is_in_use(old % BITCTL_BANKS)) gens.push_back(old);
  return gens;
}

Status RankArenas::make(uint32_t gen, Pending pending) {
  Generation generation;
  generation.layout = std::move(pending.layout);
  generation.layout.gen = gen;
  generation.request = pending.request;
  generation.for_load = pending.for_load;
  for (int i = 0; i < BITCTL_SLOTS; ++i) {
    auto memory = create_memory(fmt::format("bitctl-slot-{}", i), generation.layout.slot_bytes());
    if (!memory) return forward(std::move(memory));
    generation.slots.push_back(std::move(*memory));
  }
  last_gen_ = gen;
  generations_[gen] = std::move(generation);
  return {};
}

void RankArenas::drop(uint32_t gen) {
  generations_.erase(gen);
  for (bitctl_slot& slot : page_.slots[gen % BITCTL_BANKS])
    if (bitctl_load32(&slot.gen) == gen) bitctl_store32(&slot.state, BITCTL_SLOT_FREE);
}

Json RankArenas::message(uint32_t gen) const {
  const auto found = generations_.find(gen);
  return found == generations_.end() ? Json::object() : to_json(found->second.layout);
}

std::vector<int> RankArenas::slot_fds(uint32_t gen) const {
  std::vector<int> fds;
  if (const auto found = generations_.find(gen); found != generations_.end())
    for (const Fd& fd : found->second.slots) fds.push_back(fd.get());
  return fds;
}

}  // namespace bitctl
