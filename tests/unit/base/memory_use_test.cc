#include "base/memory_use.h"

#include <gtest/gtest.h>

namespace bitctl {
namespace {

TEST(MemoryUse, OnlyEvidenceCounts) {
  EXPECT_TRUE(ran_out_of_memory({.peak = 900, .limit = 1000}, true));
  EXPECT_FALSE(ran_out_of_memory({.peak = 899, .limit = 1000}, true));
  EXPECT_FALSE(ran_out_of_memory({.peak = 900}, true)) << "no limit is known";
  EXPECT_TRUE(ran_out_of_memory({.oom_kills = 1}, true));
  EXPECT_FALSE(ran_out_of_memory({.peak = 1000, .limit = 1000, .oom_kills = 1}, false))
      << "it was somebody else";
}

TEST(MemoryUse, IsTold) {
  EXPECT_EQ(describe(MemoryUse{}), "");
  EXPECT_EQ(describe({.peak = 1 << 20}), "1.0 MiB at its peak");
  EXPECT_EQ(describe({.peak = 1 << 20, .limit = 2 << 20}), "1.0 MiB at its peak, of 2.0 MiB");
}

}  // namespace
}  // namespace bitctl
