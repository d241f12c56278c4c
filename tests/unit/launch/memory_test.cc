#include "launch/memory.h"

#include <gtest/gtest.h>

#include "temporary_folder.h"

namespace bitctl {
namespace {

constexpr uint64_t kMiB = 1 << 20;

// A hierarchy of plain files: mount/outer/leaf, a v1 cgroup beside it, and the machine's own counters.
class MemoryEvidenceTest : public testing::Test {
 protected:
  MemoryEvidenceTest() { folder_.write("vmstat", "oom_kill 5\npgfault 1\n"); }

  MemoryEvidence evidence(bool v1 = false) {
    return MemoryEvidence(MemoryEvidence::Places{folder_ / "mount", folder_ / "mount/outer/leaf",
                                                 v1 ? folder_ / "v1" : "", folder_ / "vmstat"});
  }
  void events(const std::string& group, int oom_kills) {
    folder_.write("mount/" + group + "/memory.events",
                  "low 0\noom 9\noom_kill " + std::to_string(oom_kills) + "\n");
  }

  TemporaryFolder folder_;
};

TEST_F(MemoryEvidenceTest, TheLeafCountsItsOwnAndTheLowestLimitAboveItHolds) {
  events("outer/leaf", 1);
  folder_.write("mount/outer/leaf/memory.max", "max\n");
  folder_.write("mount/outer/leaf/memory.peak", std::to_string(90 * kMiB) + "\n");
  folder_.write("mount/outer/memory.max", std::to_string(100 * kMiB) + "\n");
  folder_.write("mount/memory.max", std::to_string(200 * kMiB) + "\n");
  const auto watched = evidence();
  EXPECT_EQ(watched.since().oom_kills, 0u) << "what was counted before is not ours";
  EXPECT_EQ(watched.since().peak, 0u) << "full of page cache is no evidence";
  EXPECT_EQ(watched.since().limit, 100 * kMiB);
  events("outer/leaf", 3);
  EXPECT_EQ(watched.since().oom_kills, 2u);
  EXPECT_EQ(watched.since().peak, 90 * kMiB);
}

TEST_F(MemoryEvidenceTest, WithoutAControllerInTheLeafTheNearestAboveCountsAndItsPeakIsNotOurs) {
  events("outer", 0);
  folder_.write("mount/outer/memory.peak", "123\n");
  const auto watched = evidence();
  events("outer", 1);
  EXPECT_EQ(watched.since().oom_kills, 1u);
  EXPECT_EQ(watched.since().peak, 0u);
}

TEST_F(MemoryEvidenceTest, Version1CountsWhereVersion2HasNoController) {
  folder_.write("v1/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
  folder_.write("v1/memory.stat", "cache 1\nhierarchical_memory_limit 4096\n");
  auto watched = evidence(true);
  EXPECT_EQ(watched.since().limit, 4096u);
  folder_.write("v1/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n");
  folder_.write("v1/memory.stat", "hierarchical_memory_limit 9223372036854771712\n");
  EXPECT_EQ(watched.since().oom_kills, 1u);
  EXPECT_EQ(watched.since().limit, 0u) << "the number that means: none";
  watched.restart();
  EXPECT_EQ(watched.since().oom_kills, 0u);
}

TEST_F(MemoryEvidenceTest, RoomIsWhatTheTightestLimitLeavesAndPageCacheIsFree) {
  events("outer/leaf", 0);
  folder_.write("mount/outer/leaf/memory.max", "max\n");
  EXPECT_EQ(evidence().room(), std::nullopt);
  folder_.write("mount/outer/memory.max", std::to_string(100 * kMiB) + "\n");
  folder_.write("mount/outer/memory.current", std::to_string(90 * kMiB) + "\n");
  folder_.write("mount/outer/memory.stat", "inactive_file " + std::to_string(20 * kMiB) + "\nactive_file " +
                                               std::to_string(10 * kMiB) + "\n");
  EXPECT_EQ(evidence().room(), 40 * kMiB);
  folder_.write("mount/memory.max", std::to_string(200 * kMiB) + "\n");
  folder_.write("mount/memory.current", std::to_string(190 * kMiB) + "\n");
  EXPECT_EQ(evidence().room(), 10 * kMiB);
  folder_.write("mount/memory.current", std::to_string(300 * kMiB) + "\n");
  EXPECT_EQ(evidence().room(), 0u) << "a limit may have been lowered under what is in use";
}

TEST_F(MemoryEvidenceTest, RoomUnderVersion1) {
  folder_.write("v1/memory.oom_control", "oom_kill 0\n");
  folder_.write("v1/memory.stat", "hierarchical_memory_limit " + std::to_string(100 * kMiB) +
                                      "\ntotal_inactive_file " + std::to_string(5 * kMiB) + "\n");
  folder_.write("v1/memory.usage_in_bytes", std::to_string(65 * kMiB) + "\n");
  EXPECT_EQ(evidence(true).room(), 40 * kMiB);
  folder_.write("v1/memory.stat", "hierarchical_memory_limit 9223372036854771712\n");
  EXPECT_EQ(evidence(true).room(), std::nullopt);
}

TEST_F(MemoryEvidenceTest, ElseTheMachineCounts) {
  const auto watched = evidence();
  folder_.write("vmstat", "oom_kill 6\n");
  EXPECT_EQ(watched.since().oom_kills, 1u);
  EXPECT_EQ(watched.since().limit, 0u);
}

}  // namespace
}  // namespace bitctl
