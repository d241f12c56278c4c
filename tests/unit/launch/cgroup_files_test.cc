#include "launch/cgroup_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "temporary_folder.h"

namespace bitctl {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// A cgroup whose files are plain ones: a write replaces the beginning, which is all that is looked at here.
class CgroupFiles : public testing::Test {
 protected:
  TemporaryFolder folder_;
};

TEST_F(CgroupFiles, OnlyControllersThatAreThereAndNotHandedOnYetAreHandedOn) {
  folder_.write("cgroup.controllers", "cpuset cpu io memory hugetlb pids\n");
  folder_.write("cgroup.subtree_control", "cpu\n");
  EXPECT_THAT(hand_on_controllers(folder_.path()), ElementsAre("memory", "io", "pids"));
}

TEST_F(CgroupFiles, NoControllersAreNormal) {
  folder_.write("cgroup.controllers", "hugetlb\n");
  folder_.write("cgroup.subtree_control", "");
  EXPECT_THAT(hand_on_controllers(folder_.path()), IsEmpty());
  EXPECT_EQ(read_text(folder_ / "cgroup.subtree_control"), "");
}

TEST_F(CgroupFiles, ARefusalIsNoController) {
  folder_.write("cgroup.controllers", "memory\n");
  EXPECT_THAT(hand_on_controllers(folder_.path()), IsEmpty()) << "there is no file to write to";
}

TEST_F(CgroupFiles, WhatWasHandedOnIsTakenBack) {
  folder_.write("cgroup.subtree_control", "+memory");
  take_back_controllers(folder_.path(), {"memory"});
  EXPECT_EQ(read_text(folder_ / "cgroup.subtree_control"), "-memory");
}

TEST_F(CgroupFiles, ProcessesOfAllDepthsAreFound) {
  folder_.write("cgroup.procs", "11\n12\n");
  folder_.write("own/cgroup.procs", "13\n");
  folder_.write("own/deeper/cgroup.procs", "14\n");
  EXPECT_THAT(cgroup_pids(folder_.path()), testing::UnorderedElementsAre(11, 12, 13, 14));
}

TEST_F(CgroupFiles, ValuesAreReadByTheirWholeKey) {
  folder_.write("memory.events", "low 0\noom 4\noom_kill 3\n");
  EXPECT_EQ(cgroup_file_value(folder_ / "memory.events", "oom_kill"), 3u);
  EXPECT_EQ(cgroup_file_value(folder_ / "memory.events", "kill"), 0u);
  EXPECT_EQ(cgroup_file_value(folder_ / "none", "oom_kill"), 0u);
  folder_.write("cgroup.events", "populated 1\nfrozen 0\n");
  EXPECT_TRUE(cgroup_is_populated(folder_.path()));
}

}  // namespace
}  // namespace bitctl
