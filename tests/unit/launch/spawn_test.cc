#include "launch/spawn.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "base/process_id.h"
#include "temporary_folder.h"

namespace bitctl {
namespace {

using testing::HasSubstr;

class SpawnTest : public testing::Test {
 protected:
  SpawnPlan shell(const std::string& script) {
    SpawnPlan plan;
    plan.argv = {"sh", "-c", script};
    plan.env = current_environment();
    plan.cwd = folder_.path();
    plan.output = folder_ / "log";
    return plan;
  }
  static ExitStatus wait(const Spawned& child) {
    pollfd ready{child.pidfd.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&ready, 1, 60'000), 1);
    return reap(child.pidfd.get()).value_or(ExitStatus{});
  }
  std::string log() { return read_text(folder_ / "log"); }

  TemporaryFolder folder_;
};

TEST_F(SpawnTest, ExitCodesAndSignalsAreTold) {
  for (const int code : {0, 1, 42, 255}) {
    const auto child = spawn(shell("exit " + std::to_string(code)));
    ASSERT_TRUE(child) << child.error().message;
    EXPECT_EQ(wait(*child), (ExitStatus{false, code}));
  }
  const auto child = spawn(shell("kill -9 $$"));
  EXPECT_EQ(wait(*child).as_exit_code(), 137);
}

TEST_F(SpawnTest, NothingIsInheritedButWhatIsNamed) {
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  // Not close-on-exec, on purpose, and above the numbers that the named ones get.
  const Fd leak(::fcntl(null.get(), F_DUPFD, 100));
  const Fd named(::open(folder_.write("named", "from the parent").c_str(), O_RDONLY | O_CLOEXEC));
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  SpawnPlan plan = shell(
      "cat <&3; echo; ls /proc/self/fd | tr '\\n' ' '; echo; grep -E 'SigBlk|SigIgn' /proc/self/status; "
      "readlink /proc/self/fd/0");
  plan.inherited = {named.get()};
  const auto child = spawn(plan);
  ASSERT_TRUE(child);
  EXPECT_EQ(wait(*child).as_exit_code(), 0);
  // 3 is what was named, 4 the folder that ls itself reads.
  EXPECT_THAT(log(), HasSubstr("from the parent\n0 1 2 3 4 \n"));
  EXPECT_THAT(log(), HasSubstr("SigBlk:\t0000000000000000"));
  EXPECT_THAT(log(), HasSubstr("SigIgn:\t0000000000000000"));
  EXPECT_THAT(log(), HasSubstr("/dev/null"));
}

TEST_F(SpawnTest, WhatCannotBeStartedLeavesNoChild) {
  SpawnPlan plan = shell("");
  plan.argv = {"no-such-program-at-all"};
  EXPECT_EQ(spawn(plan).error().kind, ErrorKind::not_found);
  plan.argv = {folder_.write("plain", "no program")};
  EXPECT_EQ(spawn(plan).error().kind, ErrorKind::invalid);
  std::filesystem::permissions(folder_ / "plain", std::filesystem::perms::owner_all);
  const auto refused = spawn(plan);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("Exec format error"));
  plan = shell("true");
  plan.cwd = folder_ / "nowhere";
  EXPECT_THAT(spawn(plan).error().message, HasSubstr("no such folder to work in"));
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "a zombie is left";
}

TEST_F(SpawnTest, OutputIsAppended) {
  wait(*spawn(shell("echo one")));
  wait(*spawn(shell("echo two >&2")));
  EXPECT_EQ(log(), "one\ntwo\n");
}

TEST_F(SpawnTest, DiesWithTheThreadThatMadeItUnlessToldOtherwise) {
  for (const bool dies : {true, false}) {
    pid_t child = 0;
    int out[2];
    ASSERT_EQ(::pipe(out), 0);
    const pid_t middle = ::fork();
    if (middle == 0) {
      SpawnPlan plan = shell("sleep 60");
      plan.dies_with_us = dies;
      const auto spawned = spawn(plan);
      const pid_t pid = spawned ? spawned->pid : 0;
      [[maybe_unused]] const ssize_t n = ::write(out[1], &pid, sizeof pid);
      ::_exit(0);
    }
    ASSERT_EQ(::read(out[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
    ::waitpid(middle, nullptr, 0);
    const auto is_gone = [&] { return state_of(child) == 0 || state_of(child) == 'Z'; };
    for (int i = 0; i < 500 && dies && !is_gone(); ++i) ::usleep(10'000);
    EXPECT_EQ(is_gone(), dies);
    ::kill(child, SIGKILL);
  }
}

}  // namespace
}  // namespace bitctl
