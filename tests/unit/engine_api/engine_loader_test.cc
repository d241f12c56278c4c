#include "engine_api/engine_loader.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <thread>
#include <vector>

#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

std::string fake(const char* kind) {
  return fmt::format("{}/tests/fake_engine_{}.so", BITCTL_BUILD_DIR, kind);
}

TEST(LoadEngine, TellsWhatIsWrong) {
  const TemporaryFolder folder;
  const auto missing = load_engine(folder / "libbitctl_engine.so");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().kind, ErrorKind::not_found);

  const auto garbage = load_engine(folder.write("garbage.so", "this is no library"));
  ASSERT_FALSE(garbage);
  EXPECT_EQ(garbage.error().kind, ErrorKind::io);
  EXPECT_NE(garbage.error().message.find("garbage.so"), std::string::npos) << garbage.error().message;

  for (const char* kind : {"none", "refuses", "other_abi", "other_size"}) {
    const auto engine = load_engine(fake(kind));
    ASSERT_FALSE(engine) << kind;
    EXPECT_EQ(engine.error().kind, ErrorKind::invalid) << kind;
  }
}

TEST(LoadEngine, LoadsOnceWhoeverAsks) {
  std::vector<const bitctl_engine*> engines(8);
  std::vector<std::thread> threads;
  for (auto& engine : engines)
    threads.emplace_back([&] { engine = load_engine(fake("good")).value_or(nullptr); });
  for (auto& thread : threads) thread.join();
  for (const auto* engine : engines) EXPECT_EQ(engine, engines.front());
  ASSERT_NE(engines.front(), nullptr);
  bitctl_engine_error seen{};
  engines.front()->check_tensors(nullptr, 0, &seen);
  EXPECT_EQ(seen.text[1], 1);
}

TEST(LoadEngine, BlocksSignalsWhileItLoadsAndNotAfter) {
  const auto engine = load_engine(fake("good"));
  ASSERT_TRUE(engine);
  bitctl_engine_error seen{};
  (*engine)->check_tensors(nullptr, 0, &seen);
  EXPECT_EQ(seen.text[0], 1);
  sigset_t now;
  ASSERT_EQ(::pthread_sigmask(SIG_SETMASK, nullptr, &now), 0);
  EXPECT_EQ(::sigismember(&now, SIGINT), 0);
}

TEST(PrepareEngineEnvironment, LeavesWhatTheUserChose) {
  ::unsetenv("OMP_WAIT_POLICY");
  ::unsetenv("GOMP_SPINCOUNT");
  prepare_engine_environment();
  EXPECT_STREQ(std::getenv("GOMP_SPINCOUNT"), "1000");
  ::setenv("GOMP_SPINCOUNT", "77", 1);
  prepare_engine_environment();
  EXPECT_STREQ(std::getenv("GOMP_SPINCOUNT"), "77");
  ::unsetenv("GOMP_SPINCOUNT");
  ::setenv("OMP_WAIT_POLICY", "active", 1);
  prepare_engine_environment();
  EXPECT_EQ(std::getenv("GOMP_SPINCOUNT"), nullptr);
}

}  // namespace
}  // namespace bitctl
