#include "checkpoint/ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/manifest.h"
#include "snapshot/snapshot.h"

namespace bitctl {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr uint32_t F = BITCTL_SLOT_FREE, W = BITCTL_SLOT_WRITING, R = BITCTL_SLOT_READY,
                   P = BITCTL_SLOT_PERSISTING, D = BITCTL_SLOT_DURABLE;

// Two slots; a slot's sequence number is its step.
RankView rank(uint32_t number, uint64_t step, uint32_t a, uint64_t step_a, uint32_t b, uint64_t step_b,
              uint64_t world_size = 2) {
  const auto slot = [&](uint32_t index, uint32_t state, uint64_t of) {
    return SlotView{.rank = number,
                    .index = index,
                    .state = state,
                    .seq = of,
                    .step = of,
                    .attempt = 1,
                    .world_size = world_size};
  };
  return {step, {slot(0, a, step_a), slot(1, b, step_b)}};
}

std::optional<uint64_t> step_of(const std::optional<SlotSet>& set) {
  return set ? std::optional(set->step()) : std::nullopt;
}

std::vector<uint64_t> steps_of(const std::vector<SlotView>& slots) {
  std::vector<uint64_t> steps;
  for (const SlotView& slot : slots) steps.push_back(slot.step);
  return steps;
}

TEST(Ranks, OneAloneHasASetWithEverySnapshot) {
  const RankViews alone{{0, rank(0, 20, D, 10, R, 20, 1)}};
  EXPECT_EQ(step_of(newest_complete_set(alone)), 20u);
  EXPECT_EQ(step_of(newest_waiting_set(alone)), 20u);
  EXPECT_THAT(unmatched(alone), IsEmpty());
  EXPECT_FALSE(newest_waiting_set({{0, rank(0, 20, F, 10, D, 20, 1)}}));
}

TEST(Ranks, AStepIsCompleteWhenEveryRankHasIt) {
  EXPECT_EQ(step_of(newest_complete_set({{0, rank(0, 20, D, 10, R, 20)}, {1, rank(1, 20, D, 10, W, 20)}})),
            10u)
      << "rank 1 is still writing";
  const RankViews both{{0, rank(0, 20, D, 10, R, 20)}, {1, rank(1, 20, D, 10, R, 20)}};
  EXPECT_EQ(step_of(newest_complete_set(both)), 20u);
  EXPECT_EQ(step_of(newest_waiting_set(both)), 20u);
  EXPECT_EQ(newest_complete_set(both)->slots[1].rank, 1u);
}

TEST(Ranks, ARankOfWhomNothingIsKnownIsWaitedFor) {
  const RankViews one{{0, rank(0, 20, R, 20, F, 0)}};
  EXPECT_FALSE(newest_complete_set(one));
  ASSERT_THAT(steps_of(unmatched(one)), ElementsAre(20));
  EXPECT_TRUE(may_be_matched(unmatched(one)[0], one));
  EXPECT_EQ(who_lacks(unmatched(one)[0], one), "1 of 2 ranks have not taken it: rank 1 is not there");
}

TEST(Ranks, SlotsOfDifferentStepsAreNoSet) {
  const RankViews apart{{0, rank(0, 22, R, 20, F, 0)}, {1, rank(1, 22, R, 21, F, 0)}};
  EXPECT_FALSE(newest_complete_set(apart));
  ASSERT_THAT(steps_of(unmatched(apart)), ElementsAre(20, 21));
  for (const SlotView& slot : unmatched(apart)) EXPECT_FALSE(may_be_matched(slot, apart)) << slot.step;
  EXPECT_EQ(who_lacks(unmatched(apart)[0], apart), "1 of 2 ranks have not taken it: rank 1 is at step 22");
}

TEST(Ranks, OnlyARankThatHasGonePastAStepLeavesItOut) {
  const auto is_open = [](RankView one) {
    const RankViews ranks{{0, rank(0, 20, R, 20, F, 0)}, {1, std::move(one)}};
    return may_be_matched(ranks.at(0).slots[0], ranks);
  };
  EXPECT_TRUE(is_open(rank(1, 19, R, 10, F, 0))) << "late";
  EXPECT_TRUE(is_open(rank(1, 20, R, 10, F, 0))) << "about to take it";
  EXPECT_TRUE(is_open(rank(1, 20, R, 10, W, 20))) << "taking it";
  EXPECT_FALSE(is_open(rank(1, 21, R, 10, F, 0))) << "past it";
  EXPECT_FALSE(is_open(rank(1, 21, F, 20, F, 0))) << "past it, what it had taken was given up";
}

TEST(Ranks, WhatTellsSnapshotsApart) {
  const auto complete_with = [](auto change) {
    RankViews ranks{{0, rank(0, 20, R, 20, F, 0)}, {1, rank(1, 20, R, 20, F, 0)}};
    change(ranks[1].slots[0]);
    return newest_complete_set(ranks).has_value();
  };
  EXPECT_TRUE(complete_with([](SlotView&) {}));
  EXPECT_TRUE(complete_with([](SlotView& s) { s.state = D; }));
  EXPECT_FALSE(complete_with([](SlotView& s) { s.attempt = 2; }));
  EXPECT_FALSE(complete_with([](SlotView& s) { s.final = true; }));
  EXPECT_FALSE(complete_with([](SlotView& s) { s.world_size = 3; }));
  EXPECT_FALSE(complete_with([](SlotView& s) { s.step = 21; }));
}

TEST(Ranks, TheNewestIsTheOneThatRank0TookLast) {
  RankViews ranks{{0, rank(0, 40, D, 100, R, 40)}, {1, rank(1, 40, D, 100, R, 40)}};
  ranks[0].slots[1].seq = 101;
  EXPECT_EQ(step_of(newest_complete_set(ranks)), 40u);
}

TEST(Ranks, AStepThatIsDurableForSomeStillWaits) {
  EXPECT_EQ(step_of(newest_waiting_set({{0, rank(0, 20, D, 20, F, 0)}, {1, rank(1, 20, R, 20, F, 0)}})), 20u);
  EXPECT_EQ(step_of(newest_waiting_set({{0, rank(0, 20, P, 20, F, 0)}, {1, rank(1, 20, P, 20, F, 0)}})), 20u);
  EXPECT_FALSE(newest_waiting_set({{0, rank(0, 20, D, 20, F, 0)}, {1, rank(1, 20, D, 20, F, 0)}}));
}

TEST(Ranks, ManyThatLackAStepAreCounted) {
  const RankViews one{{0, rank(0, 20, R, 20, F, 0, 9)}};
  EXPECT_THAT(who_lacks(one.at(0).slots[0], one), testing::EndsWith("rank 4 is not there, 4 more"));
}

class Pages : public testing::Test {
 protected:
  Pages() {
    for (const uint32_t rank : {0u, 1u}) {
      auto page = ControlPage::create();
      pages_.add(rank, std::move(page->first));
    }
  }
  // Begins a snapshot, and ends it unless `unfinished`.
  void take(uint32_t rank, uint64_t step, bool unfinished = false) {
    bitctl_control& page = pages_.of(rank);
    bitctl_control_set_step(&page, step);
    const int slot = bitctl_snapshot_begin(&page, 1, step, 1, 2);
    ASSERT_GE(slot, 0);
    const uint64_t used[] = {8};
    if (!unfinished) {
      ASSERT_EQ(bitctl_snapshot_commit(&page, 1, slot, used, 1, 0, -1), 0);
    }
  }
  RankPages pages_;
};

TEST_F(Pages, OfTheDeadOnlyWhatAllHaveStays) {
  for (const uint32_t rank : {0u, 1u}) take(rank, 10);
  take(0, 20);
  take(1, 20, true);
  pages_.discard_unfinished();
  const RankViews left = pages_.look();
  EXPECT_EQ(step_of(newest_complete_set(left)), 10u);
  for (const auto& [rank, view] : left)
    for (const SlotView& slot : view.slots)
      EXPECT_EQ(slot.state, slot.step == 10 ? R : F) << rank << " " << slot.step;
}

TEST_F(Pages, RequestsAreForAStepThatNoRankHasPassed) {
  bitctl_control& page = pages_.run();
  bitctl_control_agree(&page, 7);
  EXPECT_EQ(page.save_at_step + page.stop_at_step, 0u) << "nothing was asked";
  page.asked = BITCTL_ASKED_SAVE | BITCTL_ASKED_STOP;
  bitctl_control_agree(&page, 7);
  EXPECT_EQ(page.save_at_step, 8u);
  EXPECT_EQ(page.stop_at_step, 8u);
  bitctl_control_agree(&page, 9);
  EXPECT_EQ(page.stop_at_step, 8u) << "it was asked once";
  bitctl_control_save_by(&page, 6);
  EXPECT_EQ(page.save_at_step, 8u) << "the latest counts";
}

TEST_F(Pages, AsManyRanksSaveAsHaveJoined) {
  bitctl_control& page = pages_.run();
  EXPECT_EQ(bitctl_control_world_size(&page), 1u);
  bitctl_control_join(&page, 2);
  bitctl_control_join(&page, 0);
  EXPECT_EQ(bitctl_control_world_size(&page), 3u);
}

TEST_F(Pages, ARankThatLeavesWaitsForTheOthers) {
  bitctl_control& page = pages_.run();
  bitctl_control_join(&page, 1);
  EXPECT_EQ(bitctl_control_leave(&page, 1), 0) << "rank 1 is not there yet";
  EXPECT_EQ(bitctl_control_leave(&page, 1), 1);
}

TEST(FilesOfRanks, AreToldByTheirNames) {
  EXPECT_EQ(rank_of_file("model.safetensors"), 0u);
  EXPECT_EQ(rank_of_file("training.safetensors"), 0u);
  EXPECT_EQ(rank_of_file("model-rank-0.safetensors"), 0u);
  EXPECT_EQ(rank_of_file("training-rank-12.safetensors"), 12u);
  for (const char* other : {"training-rank-.safetensors", "training-rank-1x.safetensors",
                            "training-rank-1.bin", "training-rank-99999999999.safetensors"})
    EXPECT_EQ(rank_of_file(other), 0u) << other;
}

}  // namespace
}  // namespace bitctl
