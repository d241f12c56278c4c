#include "kernels/pool.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <limits>
#include <mutex>
#include <set>
#include <thread>

namespace bitctl {
namespace {

using namespace std::chrono_literals;

// Runs work in every thread of the pool at once: each piece waits until all have been claimed.
template <class Work>
void in_every_thread(Pool& pool, Work&& work) {
  std::atomic<int> claimed = 0;
  pool.run(pool.threads(), 1, [&](size_t, size_t) {
    const auto end = std::chrono::steady_clock::now() + 60s;
    for (++claimed; claimed < pool.threads() && std::chrono::steady_clock::now() < end;)
      std::this_thread::yield();
    EXPECT_EQ(claimed, pool.threads()) << "fewer threads than that take part";
    work();
  });
}

TEST(Pool, PiecesCoverAllOnce) {
  for (const int threads : {1, 2, 7}) {
    Pool pool(threads);
    for (const size_t count : {0, 1, 2, 63, 64, 65, 1000})
      for (const size_t grain : {1, 2, 64, 5000}) {
        std::vector<std::atomic<int>> times(count);
        pool.run(count, grain, [&](size_t begin, size_t end) {
          EXPECT_LT(begin, end);
          EXPECT_LE(end - begin, grain);
          for (size_t i = begin; i < end; ++i) ++times[i];
        });
        for (const auto& each : times) ASSERT_EQ(each, 1) << threads << " " << count << " " << grain;
      }
  }
}

// A worker that is late for one job must not touch the next, whose size is another one.
TEST(Pool, JobsOneAfterTheOther) {
  for (const int threads : {2, 5}) {
    Pool pool(threads);
    for (size_t job = 0; job < 20000; ++job) {
      std::atomic<size_t> sum = 0;
      const size_t count = 1 + job % 7;
      pool.run(count, 1, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) sum += job + i;
      });
      ASSERT_EQ(sum, count * job + count * (count - 1) / 2) << "job " << job;
    }
  }
}

TEST(Pool, AThreadThatIsHeldUpDelaysOnePiece) {
  constexpr size_t kPieces = 100;
  Pool pool(2);
  std::atomic<size_t> others = 0;
  pool.run(kPieces, 1, [&](size_t begin, size_t) {
    if (begin != 0) {
      ++others;
      return;
    }
    const auto end = std::chrono::steady_clock::now() + 60s;
    while (others < kPieces - 1 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    EXPECT_EQ(others, kPieces - 1);
  });
}

TEST(Pool, ThreadsComeAndGoBetweenJobs) {
  Pool pool(1);
  for (const int threads : {3, 1, 2, 6, 2, 0}) {
    pool.set_threads(threads);
    ASSERT_EQ(pool.threads(), std::max(threads, 1));
    std::mutex mutex;
    std::set<std::thread::id> seen;
    in_every_thread(pool, [&] {
      const std::lock_guard guard(mutex);
      seen.insert(std::this_thread::get_id());
    });
    EXPECT_EQ(seen.size(), pool.threads());
    EXPECT_TRUE(seen.contains(std::this_thread::get_id())) << "the caller takes part";
  }
}

TEST(Pool, DenormalsAreZeroInEveryThreadAndOnlyThere) {
  volatile float denormal = std::numeric_limits<float>::denorm_min();
  volatile float least = std::numeric_limits<float>::min();
  for (const int threads : {1, 3}) {
    Pool pool(threads);
    in_every_thread(pool, [&] {
      EXPECT_EQ(denormal * 0x1p30F, 0) << "what is read";
      EXPECT_EQ(least * 0.5F, 0) << "what comes out";
    });
    EXPECT_NE(denormal * 0x1p30F, 0);
    EXPECT_NE(least * 0.5F, 0);
  }
}

TEST(Pool, SignalsGoToOtherThreads) {
  Pool pool(3);
  const auto caller = std::this_thread::get_id();
  in_every_thread(pool, [&] {
    sigset_t blocked;
    ::pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
    for (const int signal : {SIGINT, SIGTERM, SIGCHLD, SIGWINCH})
      EXPECT_EQ(::sigismember(&blocked, signal), std::this_thread::get_id() != caller);
    EXPECT_FALSE(::sigismember(&blocked, SIGSEGV));
  });
}

TEST(Pool, WorkersHaveNames) {
  Pool pool(2);
  const auto caller = std::this_thread::get_id();
  in_every_thread(pool, [&] {
    if (std::this_thread::get_id() == caller) return;
    char name[16] = {};
    ::pthread_getname_np(::pthread_self(), name, sizeof name);
    EXPECT_STREQ(name, "bitctl-pool-1");
  });
}

}  // namespace
}  // namespace bitctl
