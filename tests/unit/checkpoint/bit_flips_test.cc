#include "checkpoint/bit_flips.h"

#include <gtest/gtest.h>

#include "step_image.h"
#include "temporary_folder.h"

namespace bitctl {
namespace {

// scripts/soak --flips: a million of them.
TEST(BitFlips, EachIsFound) {
  const TemporaryFolder folder(in_memory());
  folder.write(".side/abc/config.json", "{\"hidden_size\": 64}\n");
  TestStep step(1, 'a', 300);
  step.image.side_folder = folder / ".side/abc";
  ASSERT_TRUE(save_step(folder.path(), step.image, {}));
  const StepFolder saved{1, folder / "step-000000001"};
  const FlipCounts counts = flip_bits(saved, 3000, 7);
  EXPECT_EQ(counts.missed, 0u) << counts.first_missed;
  EXPECT_TRUE(verify_step(saved)) << "the control: whole again";
}

TEST(BitFlips, WhatIsNotCoveredIsMissed) {
  const TemporaryFolder folder(in_memory());
  ASSERT_TRUE(save_step(folder.path(), TestStep(1, 'a', 300).image, {}));
  folder.write("step-000000001/foreign", std::string(100000, 'x'));
  EXPECT_GT(flip_bits({1, folder / "step-000000001"}, 20, 7).missed, 0u) << "the control";
}

}  // namespace
}  // namespace bitctl
