#include "watch/memory.h"

#include <gtest/gtest.h>

namespace bitctl {
namespace {

TEST(MemoryState, IsReadFromBothTexts) {
  const MemoryState state = memory_state_from(
      "MemTotal:       24683612 kB\nMemFree:        15165868 kB\nMemAvailable:   22118984 kB\n",
      "some avg10=12.50 avg60=0.00 avg300=0.00 total=0\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n");
  EXPECT_EQ(state.available_bytes, uint64_t{22118984} * 1024);
  EXPECT_EQ(state.pressure, 12.5);
}

TEST(MemoryState, WithoutNewsThereIsNoMemoryAndNoPressure) {
  const MemoryState state = memory_state_from("", "");
  EXPECT_EQ(state.available_bytes, 0u);
  EXPECT_EQ(state.pressure, 0);
}

TEST(MemoryState, ThisMachineHasSome) { EXPECT_GT(read_memory_state().available_bytes, uint64_t{1} << 20); }

}  // namespace
}  // namespace bitctl
