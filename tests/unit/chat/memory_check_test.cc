#include "chat/memory_check.h"

#include <gmock/gmock.h>

namespace bitctl {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kGiB = uint64_t{1} << 30;

TEST(CheckMemory, SaysNothingOfWhatFitsOrIsNotKnown) {
  EXPECT_THAT(*check_memory(3 * kGiB, {4 * kGiB, std::nullopt}, false), IsEmpty());
  EXPECT_THAT(*check_memory(3 * kGiB, {4 * kGiB, 3 * kGiB}, false), IsEmpty());
  EXPECT_THAT(*check_memory(3 * kGiB, {0, std::nullopt}, false), IsEmpty());
}

TEST(CheckMemory, TheNarrowerOfMachineAndCgroupCounts) {
  EXPECT_THAT(*check_memory(3 * kGiB, {2 * kGiB, std::nullopt}, true),
              HasSubstr("the weights take 3.0 GiB and 2.0 GiB of memory are available"));
  EXPECT_THAT(*check_memory(3 * kGiB, {2 * kGiB, 9 * kGiB}, true),
              HasSubstr("2.0 GiB of memory are available"));
  EXPECT_THAT(*check_memory(3 * kGiB, {9 * kGiB, kGiB}, true),
              HasSubstr("1.0 GiB of memory are left by the cgroup"));
  EXPECT_THAT(*check_memory(3 * kGiB, {9 * kGiB, 0}, true),
              HasSubstr("0 B of memory are left by the cgroup"));
}

TEST(CheckMemory, WhatMustBeInMemoryIsRefused) {
  const auto checked = check_memory(3 * kGiB, {2 * kGiB, std::nullopt}, false);
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().kind, ErrorKind::invalid);
  EXPECT_THAT(checked.error().message, HasSubstr("without --no-mmap"));
}

}  // namespace
}  // namespace bitctl
