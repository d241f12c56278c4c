#include "launch/neighbours.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "base/read_file.h"
#include "launch/spawn.h"
#include "launch/sweep.h"

namespace bitctl {
namespace {

bool autogroups() { return read_kernel_file("/proc/sys/kernel/sched_autogroup_enabled").starts_with("1"); }

bool is_half(const std::string& autogroup) { return autogroup.ends_with(" nice 3\n"); }

// In a session of its own: the nice value of an autogroup is the session's.
bool in_a_session(const std::function<bool()>& holds) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::setsid();
    ::_exit(holds() ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status == 0;
}

TEST(CpuShares, WithoutACgroupTheKernelDecidesWhatMeansSomething) {
  const auto isolation = isolate_by_sweep("/tmp/run");
  EXPECT_EQ(cpu_shares(*isolation), autogroups() ? CpuShares::autogroup : CpuShares::nice);
}

TEST(GiveWay, LowersAProcessByThatMeans) {
  SpawnPlan plan;
  plan.argv = {"sleep", "600"};
  plan.env = current_environment();
  plan.cwd = std::string("/");
  const auto child = spawn(plan);
  ASSERT_TRUE(child) << child.error().message;
  const std::string autogroup = "/proc/" + std::to_string(child->pid) + "/autogroup";
  EXPECT_TRUE(give_way(child->pid, CpuShares::weight)) << "that has been seen to";
  EXPECT_EQ(::getpriority(PRIO_PROCESS, static_cast<id_t>(child->pid)), 0);
  if (autogroups()) {
    EXPECT_FALSE(is_half(read_kernel_file(autogroup)));
    EXPECT_TRUE(give_way(child->pid, CpuShares::autogroup));
    EXPECT_TRUE(is_half(read_kernel_file(autogroup)));
  }
  EXPECT_TRUE(give_way(child->pid, CpuShares::nice));
  EXPECT_EQ(::getpriority(PRIO_PROCESS, static_cast<id_t>(child->pid)), 3);
  ::kill(child->pid, SIGKILL);
  ::waitpid(child->pid, nullptr, 0);
  EXPECT_FALSE(give_way(child->pid, CpuShares::nice)) << "nobody is there any more";
}

TEST(YieldSession, GoesBackAndForth) {
  if (!autogroups()) GTEST_SKIP() << "no autogroups here";
  EXPECT_TRUE(in_a_session([] {
    yield_session(true);
    const bool least = read_kernel_file("/proc/self/autogroup").ends_with(" nice 19\n");
    yield_session(false);
    return least && is_half(read_kernel_file("/proc/self/autogroup"));
  }));
}

TEST(SelfGivesWay, TheSessionGetsBackWhatItHad) {
  if (!autogroups()) GTEST_SKIP() << "no autogroups here";
  const auto own = [] { return read_kernel_file("/proc/self/autogroup"); };
  EXPECT_TRUE(in_a_session([&] {
    bool lowered = false;
    {
      SelfGivesWay chat;
      lowered = is_half(own());
    }
    return lowered && own().ends_with(" nice 0\n");
  }));
  EXPECT_TRUE(in_a_session([&] {
    static_cast<void>(give_way(::getpid(), CpuShares::autogroup));
    { SelfGivesWay chat; }
    return is_half(own());
  })) << "what somebody has chosen stays";
  EXPECT_TRUE(in_a_session([&] {
    static_cast<void>(give_way(::getpid(), CpuShares::autogroup));
    bool lowered = false;
    {
      SelfGivesWay chat(19);
      lowered = own().ends_with(" nice 19\n") && ::getpriority(PRIO_PROCESS, 0) == 19;
    }
    return lowered && is_half(own());
  })) << "what is asked for, and then what was there before";
}

}  // namespace
}  // namespace bitctl
