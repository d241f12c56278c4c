#include "writer/rank_watch.h"

#include <algorithm>
#include <utility>

#include "snapshot/control_page.h"

namespace bitctl {
namespace {

constexpr std::chrono::seconds kLate(60);

// Rank 0 has taken the finished model, which it saves alone.
bool has_ended_by(uint64_t step, const RankViews& ranks) {
  const auto rank_0 = ranks.find(0);
  return rank_0 != ranks.end() && std::ranges::any_of(rank_0->second.slots, [&](const SlotView& slot) {
           return slot.final && bitctl_slot_is_complete(slot.state) && slot.step >= step;
         });
}

}  // namespace

void RankWatch::look(const RankViews& ranks) {
  std::optional<uint64_t> late;
  for (const SlotView& slot : unmatched(ranks)) {
    if (has_ended_by(slot.step, ranks)) {
      pages_.release(slot);
      continue;
    }
    if (may_be_matched(slot, ranks)) {
      late = std::max(late.value_or(0), slot.step);
      continue;
    }
    if (!pages_.release(slot)) continue;
    // Where one of them had no free slot, all will try again at a later step.
    const bool will_be_retried = bitctl_load64(&pages_.run().save_at_step) > slot.step;
    if (!will_be_retried && std::exchange(refused_, slot.step) != slot.step)
      tell_(slot, who_lacks(slot, ranks), true);
  }
  await(late);
}

void RankWatch::await(std::optional<uint64_t> step) {
  if (awaited_ == step) return;
  loop_.cancel(timer_);
  awaited_ = step;
  if (step) timer_ = loop_.call_after(kLate, [this] { on_late(); });
}

void RankWatch::on_late() {
  const RankViews ranks = pages_.look();
  for (const SlotView& slot : unmatched(ranks))
    if (slot.step == awaited_) return tell_(slot, who_lacks(slot, ranks), false);
}

}  // namespace bitctl
