#include "checkpoint/arena.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "snapshot/snapshot.h"

namespace bitctl {
namespace {

Json request(Json files) { return {{"gen", 1}, {"files", std::move(files)}}; }
Json file(const char* name, Json header, Json data) {
  return {{"name", name}, {"header_bytes", std::move(header)}, {"data_bytes", std::move(data)}};
}

TEST(ArenaLayout, RoundsRegionsUpToPages) {
  const auto layout = arena_layout_from(
      request({file("model.safetensors", 100, 5000), file("training.safetensors", 4096, 0)}));
  ASSERT_TRUE(layout) << layout.error().message;
  EXPECT_EQ(layout->files[0], (ArenaFile{"model.safetensors", 4096, 8192}));
  EXPECT_EQ(layout->offset_of(1), 12288u);
  EXPECT_EQ(layout->slot_bytes(), 16384u);
  EXPECT_EQ(*arena_layout_from(to_json(*layout)), *layout);
}

TEST(ArenaLayout, RefusesWhatCannotBe) {
  const uint64_t huge = UINT64_MAX - 100;
  for (const Json& bad :
       {request(Json::array()), request({file("../x.safetensors", 1, 1)}),
        request({file(".safetensors", 1, 1)}), request({file("model.bin", 1, 1)}),
        request({file("model.safetensors", 0, 1)}), request({file("model.safetensors", -1, 1)}),
        request({file("model.safetensors", 1, huge)}), request({file("model.safetensors", 1.5, 1)}),
        request({file("a.safetensors", 1, 1), file("a.safetensors", 1, 1)}), Json{{"files", Json::array()}},
        request({file("a.safetensors", 1, 1), file("b.safetensors", 1, 1), file("c.safetensors", 1, 1),
                 file("d.safetensors", 1, 1), file("e.safetensors", 1, 1)})})
    EXPECT_FALSE(arena_layout_from(bad)) << bad.dump();
}

TEST(ArenaMemory, IsSealedAgainstShrinkingAndGrowing) {
  const auto fd = create_memory("test", 8192);
  ASSERT_TRUE(fd);
  EXPECT_FALSE(check_memory(fd->get(), 8192)) << "not sealed yet";
  ASSERT_TRUE(allocate_memory(fd->get(), 8192));
  EXPECT_TRUE(check_memory(fd->get(), 8192));
  EXPECT_FALSE(check_memory(fd->get(), 4096)) << "another size";
  EXPECT_NE(ftruncate(fd->get(), 0), 0);
  EXPECT_NE(ftruncate(fd->get(), 16384), 0);
}

TEST(ArenaMemory, OnlySealedMemoryIsTaken) {
  FILE* plain = tmpfile();
  ASSERT_EQ(ftruncate(fileno(plain), 4096), 0);
  EXPECT_FALSE(check_memory(fileno(plain), 4096));
  EXPECT_FALSE(ControlPage::map(fileno(plain)));
  fclose(plain);
}

class Slots : public testing::Test {
 protected:
  Slots() {
    auto created = ControlPage::create();
    page_ = std::move(created->first);
    fd_ = std::move(created->second);
  }
  uint32_t state(int slot) { return page_->slots[1][slot].state; }
  void set(int slot, uint32_t state, uint64_t seq = 1, uint64_t step = 1) {
    page_->slots[1][slot] = {.state = state, .gen = 1, .seq = seq, .step = step};
    page_->seq = std::max(page_->seq, seq);
  }
  int begin(uint64_t step = 10) { return bitctl_snapshot_begin(&*page_, 1, step, 1, 1); }
  ControlPage page_;
  Fd fd_;
};

TEST_F(Slots, AnotherProcessReadsTheSamePage) {
  const auto mapped = ControlPage::map(fd_.get());
  ASSERT_TRUE(mapped);
  bitctl_control_set_step(&*page_, 42);
  EXPECT_EQ((*mapped)->step, 42u);
  page_->version = 99;
  EXPECT_FALSE(ControlPage::map(fd_.get()));
}

TEST_F(Slots, ASnapshotGoesFromFreeToReady) {
  const int slot = begin(10);
  ASSERT_GE(slot, 0);
  EXPECT_EQ(state(slot), BITCTL_SLOT_WRITING);
  EXPECT_FALSE(newest_complete(*page_));
  const uint64_t used[] = {100, 200};
  EXPECT_EQ(bitctl_snapshot_commit(&*page_, 1, slot, used, 2, 0, -1), 0);
  const auto complete = newest_complete(*page_);
  ASSERT_TRUE(complete);
  EXPECT_EQ(complete->step, 10u);
  EXPECT_EQ(page_->slots[1][slot].used[1], 200u);
}

TEST_F(Slots, WhatWasTakenBackIsNoSnapshot) {
  const int slot = begin(10);
  discard_unfinished(*page_);
  const uint64_t used[] = {100, 200};
  EXPECT_EQ(bitctl_snapshot_commit(&*page_, 1, slot, used, 2, 0, -1), -1);
  EXPECT_FALSE(newest_complete(*page_));
}

// Every pair of states: which slot may be written, and that the only complete one never is.
TEST_F(Slots, WhichSlotMayBeWritten) {
  struct Row {
    uint32_t a, b;
    int chosen;  // slot, or -1: deferred
  };
  constexpr uint32_t F = BITCTL_SLOT_FREE, W = BITCTL_SLOT_WRITING, R = BITCTL_SLOT_READY,
                     P = BITCTL_SLOT_PERSISTING, D = BITCTL_SLOT_DURABLE, L = BITCTL_SLOT_LOADING,
                     B = BITCTL_SLOT_BROKEN;
  // Slot a holds the older snapshot.
  for (const Row& row :
       {Row{F, F, 0},  Row{R, F, 1},  Row{F, R, 0},  Row{P, F, 1}, Row{D, F, 1},  Row{D, R, 0},
        Row{D, P, 0},  Row{D, D, 0},  Row{R, D, 1},  Row{P, D, 1}, Row{R, R, 0},  Row{R, P, -1},
        Row{P, R, -1}, Row{B, R, 0},  Row{R, B, 1},  Row{D, B, 1}, Row{D, L, -1}, Row{D, W, -1},
        Row{R, W, -1}, Row{R, L, -1}, Row{P, W, -1}, Row{L, L, -1}}) {
    set(0, row.a, 1);
    set(1, row.b, 2);
    EXPECT_EQ(begin(), row.chosen) << row.a << " " << row.b;
  }
}

TEST_F(Slots, WhatADeadTrainerWasWritingIsDiscarded) {
  set(0, BITCTL_SLOT_READY, 1, 7);
  set(1, BITCTL_SLOT_WRITING, 2, 8);
  discard_unfinished(*page_);
  EXPECT_EQ(state(1), BITCTL_SLOT_FREE);
  EXPECT_EQ(newest_complete(*page_)->step, 7u);
}

TEST_F(Slots, TheNewestIsTheOneTakenLastNotTheOneOfTheHighestStep) {
  set(0, BITCTL_SLOT_DURABLE, 5, 100);
  set(1, BITCTL_SLOT_READY, 6, 40);
  EXPECT_EQ(newest_complete(*page_)->step, 40u);
}

TEST_F(Slots, WaitingForALoadEndsWithItsVerdict) {
  set(0, BITCTL_SLOT_LOADING);
  page_->slots[1][0].loaded = 4096;
  EXPECT_EQ(bitctl_snapshot_await(&*page_, 1, 0, 4096, 1), 1);
  EXPECT_EQ(bitctl_snapshot_await(&*page_, 1, 0, 8192, 1), 0);
  page_->slots[1][0].state = BITCTL_SLOT_BROKEN;
  EXPECT_EQ(bitctl_snapshot_await(&*page_, 1, 0, 8192, 1), -1);
  page_->slots[1][0].state = BITCTL_SLOT_DURABLE;
  EXPECT_EQ(bitctl_snapshot_await(&*page_, 1, 0, 8192, 1), 1);
}

}  // namespace
}  // namespace bitctl
