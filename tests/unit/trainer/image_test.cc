#include "trainer/image.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace bitctl::trainer {
namespace {

class Image : public testing::Test {
 protected:
  Image() {
    state_.model = {{"b", "F32", {3}, floats_}, {"a", "U8", {2}, bytes_}};
    state_.training = {{"empty", "F32", {0}, nullptr}};
    state_.text = "where it was";
  }
  ArenaLayout arena_for(const std::vector<FileLayout>& files) {
    return *arena_layout_from({{"gen", 1}, {"files", regions_for(files)}});
  }

  float floats_[3] = {1, 2, 3};
  unsigned char bytes_[2] = {7, 8};
  State state_;
};

TEST_F(Image, ComesBackAsItWas) {
  const auto files = lay_out_state(state_, 5);
  ASSERT_TRUE(files) << files.error().message;
  const ArenaLayout arena = arena_for(*files);
  ASSERT_TRUE(holds(arena, *files));
  std::vector<char> memory(arena.slot_bytes());
  const auto used = write_image(*files, arena, memory.data());
  ASSERT_TRUE(used);
  const auto parts = read_image(arena, used->data(), memory.data());
  ASSERT_TRUE(parts) << parts.error().message;
  ASSERT_EQ(parts->model.size(), 2u);
  EXPECT_EQ(parts->model[0].name, "b") << "the widest first";
  EXPECT_EQ(std::memcmp(parts->model[0].data, floats_, sizeof floats_), 0);
  EXPECT_EQ(std::memcmp(parts->model[1].data, bytes_, sizeof bytes_), 0);
  EXPECT_EQ(parts->training.size(), 1u);
  EXPECT_EQ(parts->text, state_.text);
}

TEST_F(Image, AnArenaThatIsTooSmallIsNotHeld) {
  const auto before = lay_out_state(state_, 5);
  const ArenaLayout arena = arena_for(*before);
  state_.text = std::string(100'000, 'x');
  EXPECT_FALSE(holds(arena, *lay_out_state(state_, 6))) << "the header has outgrown its region";
  state_.text.clear();
  float more[4096] = {};
  state_.training.push_back({"more", "F32", {4096}, more});
  EXPECT_FALSE(holds(arena, *lay_out_state(state_, 6)));
}

TEST_F(Image, WhatCannotBeSavedIsNamed) {
  state_.model.push_back({"b", "F32", {3}, floats_});
  EXPECT_FALSE(lay_out_state(state_, 5)) << "a name twice";
  state_.model.back() = {"c", "F31", {3}, floats_};
  EXPECT_NE(lay_out_state(state_, 5).error().message.find("c"), std::string::npos);
  state_.model.back() = {"c", "F32", {3}, nullptr};
  EXPECT_EQ(lay_out_state(state_, 5).error().message, "tensor c has no data");
}

TEST_F(Image, GarbageIsNoSnapshot) {
  const auto files = lay_out_state(state_, 5);
  const ArenaLayout arena = arena_for(*files);
  std::vector<char> memory(arena.slot_bytes());
  const auto used = write_image(*files, arena, memory.data());
  std::vector<uint64_t> longer = *used;
  longer[0] = arena.slot_bytes() + 1;
  EXPECT_FALSE(read_image(arena, longer.data(), memory.data()));
  memory[9] = '!';
  EXPECT_FALSE(read_image(arena, used->data(), memory.data()));
}

}  // namespace
}  // namespace bitctl::trainer
