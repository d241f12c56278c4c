#include "doctor/disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>

#include <cerrno>
#include <filesystem>

#include "doctor/machine.h"
#include "temporary_folder.h"

namespace bitctl {
namespace {

using enum Finding::Verdict;
using testing::HasSubstr;

constexpr uint64_t kGiB = uint64_t{1} << 30;

TEST(Space, IsMeasuredByTheCheckpoint) {
  EXPECT_EQ(space_finding(10 * kGiB, kGiB).verdict, ok);
  EXPECT_EQ(space_finding(2 * kGiB, kGiB).verdict, warn);
  EXPECT_EQ(space_finding(kGiB / 2, kGiB).verdict, failure);
  EXPECT_EQ(space_finding(2 * kGiB, 0).verdict, ok);
  EXPECT_EQ(space_finding(1 << 20, 0).verdict, failure);
  EXPECT_THAT(space_finding(0, 0).mend, HasSubstr("free some space"));
}

TEST(Speed, OneThatIsTooSlowIsToldWithWhatItCosts) {
  EXPECT_EQ(speed_finding(500e6, kGiB).verdict, ok);
  EXPECT_EQ(speed_finding(5e6, kGiB).verdict, warn);
  EXPECT_THAT(speed_finding(5e6, kGiB).text, HasSubstr("3m35s a checkpoint"));
  EXPECT_EQ(speed_finding(0, 0).verdict, warn);
}

class DiskTest : public testing::Test {
 protected:
  TemporaryFolder folder_;
};

TEST_F(DiskTest, AGoodFolderPassesAndNothingIsLeft) {
  {
    auto scratch = ScratchFolder::make(folder_.path());
    ASSERT_TRUE(scratch) << scratch.error().message;
    const std::string& path = scratch->path();
    EXPECT_NE(check_speed(path, 0).verdict, failure);
    EXPECT_NE(check_direct_io(path).verdict, failure);
    EXPECT_EQ(check_locks(path, ::flock).verdict, ok);
    EXPECT_EQ(check_rename(path).verdict, ok);
    EXPECT_EQ(check_file_time(path, system_clock().wall()).verdict, ok);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

TEST_F(DiskTest, AClockThatIsOffIsSeen) {
  const auto finding = check_file_time(folder_.path(), system_clock().wall() + std::chrono::hours(1));
  EXPECT_EQ(finding.verdict, warn);
  EXPECT_THAT(finding.text, HasSubstr("s off ours"));
}

TEST_F(DiskTest, LocksThatAreNoneAreSeen) {
  // Everybody gets it; nobody does; and one that outlives its holder.
  const auto to_all = +[](int, int) { return 0; };
  EXPECT_THAT(check_locks(folder_.path(), to_all).text, HasSubstr("keeps nobody out"));
  const auto to_none = +[](int, int) {
    errno = ENOLCK;
    return -1;
  };
  EXPECT_THAT(check_locks(folder_.path(), to_none).text, HasSubstr("no flock"));
  const auto for_ever = +[](int fd, int operation) {
    if (operation & LOCK_EX) return ::flock(fd, operation);
    errno = EWOULDBLOCK;
    return -1;
  };
  EXPECT_THAT(check_locks(folder_.path(), for_ever).text, HasSubstr("a dead process keeps its lock"));
}

TEST_F(DiskTest, AFolderThatIsGoneFailsEveryCheck) {
  const std::string none = folder_ / "none";
  EXPECT_FALSE(ScratchFolder::make(none));
  EXPECT_EQ(check_space(none, 0).verdict, failure);
  EXPECT_EQ(check_speed(none, 0).verdict, failure);
  EXPECT_EQ(check_direct_io(none).verdict, failure);
  EXPECT_EQ(check_locks(none, ::flock).verdict, failure);
  EXPECT_EQ(check_rename(none).verdict, failure);
  EXPECT_EQ(check_file_time(none, system_clock().wall()).verdict, failure);
}

TEST(Memory, IsMeasuredByTwoSnapshotsAndTheLimit) {
  EXPECT_EQ(memory_finding(16 * kGiB, 0, kGiB).verdict, ok);
  EXPECT_EQ(memory_finding(16 * kGiB, 3 * kGiB, kGiB).verdict, warn);
  EXPECT_EQ(memory_finding(16 * kGiB, kGiB, kGiB).verdict, failure);
  EXPECT_EQ(memory_finding(kGiB / 2, 0, 0).verdict, warn);
  EXPECT_EQ(check_memory_files().verdict, ok);
}

TEST(Clock, BeforeThisProgramWasMadeIsNotSane) {
  EXPECT_EQ(clock_finding(Wall(std::chrono::seconds(0)), {}).verdict, failure);
  EXPECT_EQ(clock_finding(Wall(std::chrono::seconds(1'800'000'000)), {}).verdict, ok);
  EXPECT_THAT(clock_finding(Wall(std::chrono::seconds(1'800'000'000)), std::chrono::hours(2)).text,
              HasSubstr("slept 2h"));
}

TEST(Stacks, WhatPySpyMay) {
  EXPECT_EQ(stacks_finding(false, 3, false).verdict, ok);
  EXPECT_EQ(stacks_finding(true, 0, false).verdict, ok);
  EXPECT_EQ(stacks_finding(true, 1, false).verdict, warn);
  EXPECT_EQ(stacks_finding(true, 1, true).verdict, ok);
  EXPECT_EQ(stacks_finding(true, 3, true).verdict, warn);
}

}  // namespace
}  // namespace bitctl
