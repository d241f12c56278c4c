#include "base/lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <thread>

#include "temporary_folder.h"

namespace bitctl {
namespace {

using Mode = FileLock::Mode;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

TEST(FileLock, AnExclusiveHolderKeepsEverybodyOutAndIsNamed) {
  const TemporaryFolder folder;
  const auto held = FileLock::acquire(folder / "l", Mode::exclusive, Duration::zero());
  ASSERT_TRUE(held);
  for (const Mode mode : {Mode::exclusive, Mode::shared}) {
    const auto other = FileLock::acquire(folder / "l", mode, milliseconds(30));
    ASSERT_FALSE(other);
    EXPECT_EQ(other.error().kind, ErrorKind::locked);
    EXPECT_THAT(other.error().message, HasSubstr(fmt::format("pid {} (started 2", ::getpid())));
    EXPECT_THAT(other.error().message, HasSubstr("base_test"));
  }
}

TEST(FileLock, ReadersShare) {
  const TemporaryFolder folder;
  folder.write("l", "");
  const auto a = FileLock::acquire(folder / "l", Mode::shared, Duration::zero());
  const auto b = FileLock::acquire(folder / "l", Mode::shared, Duration::zero());
  EXPECT_TRUE(a && b);
  EXPECT_FALSE(FileLock::acquire(folder / "l", Mode::exclusive, Duration::zero()));
}

TEST(FileLock, ASharedLockMakesNoFile) {
  const TemporaryFolder folder;
  const auto lock = FileLock::acquire(folder / "l", Mode::shared, Duration::zero());
  ASSERT_FALSE(lock);
  EXPECT_EQ(lock.error().kind, ErrorKind::not_found);
  EXPECT_FALSE(std::filesystem::exists(folder / "l"));
}

TEST(FileLock, WaitsUntilItIsFree) {
  const TemporaryFolder folder;
  auto held = FileLock::acquire(folder / "l", Mode::exclusive, Duration::zero());
  std::thread waiter([&] { EXPECT_TRUE(FileLock::acquire(folder / "l", Mode::exclusive, seconds(60))); });
  std::this_thread::sleep_for(milliseconds(20));
  { const auto let_go = std::move(*held); }
  waiter.join();
}

TEST(FileLock, AKilledHolderLetsGo) {
  const TemporaryFolder folder;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto lock = FileLock::acquire(folder / "l", Mode::exclusive, Duration::zero());
    if (lock && ::write(ready[1], "x", 1) == 1) ::pause();
    ::_exit(1);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_FALSE(FileLock::acquire(folder / "l", Mode::exclusive, Duration::zero()));
  EXPECT_THAT(lock_holder_pids(folder / "l"), testing::ElementsAre(child));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(FileLock::acquire(folder / "l", Mode::exclusive, Duration::zero()));
}

}  // namespace
}  // namespace bitctl
