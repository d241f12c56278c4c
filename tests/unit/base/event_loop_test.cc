#include "base/event_loop.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <csignal>
#include <thread>
#include <vector>

#include "base/worker.h"

namespace bitctl {
namespace {

using std::chrono::milliseconds;

TEST(EventLoop, TimersRunInTheirOrder) {
  EventLoop loop;
  std::vector<int> order;
  const Mono now = loop.now();
  loop.call_at(now + milliseconds(2), [&] { order.push_back(2), loop.stop(); });
  loop.call_at(now + milliseconds(1), [&] { order.push_back(1); });
  const auto cancelled = loop.call_at(now, [&] { order.push_back(0); });
  loop.cancel(cancelled);
  loop.run();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST(EventLoop, ATimerMayCancelTheNextOneOfItsRound) {
  EventLoop loop;
  int ran = 0;
  EventLoop::TimerId second = 0;
  const Mono now = loop.now();
  loop.call_at(now, [&] { ++ran, loop.cancel(second); });
  second = loop.call_at(now, [&] { ++ran; });
  loop.call_at(now + milliseconds(1), [&] { loop.stop(); });
  loop.run();
  EXPECT_EQ(ran, 1);
}

TEST(EventLoop, ACallbackMayUnwatchItselfAndOthers) {
  EventLoop loop;
  Fd a(::eventfd(1, 0)), b(::eventfd(1, 0));
  int ran = 0;
  const auto both = [&](uint32_t) {
    ++ran;
    loop.unwatch(a.get());
    loop.unwatch(b.get());
  };
  loop.watch(a.get(), EPOLLIN, both);
  loop.watch(b.get(), EPOLLIN, both);
  loop.run_once(milliseconds(100));
  loop.run_once(milliseconds(1));
  EXPECT_EQ(ran, 1);
}

TEST(EventLoop, SignalsArriveAsADescriptor) {
  EventLoop loop;
  const Fd signals = block_and_watch_signals({SIGUSR1});
  int seen = 0;
  loop.watch(signals.get(), EPOLLIN, [&](uint32_t) {
    while (const int signal = next_signal(signals.get())) seen = signal;
    loop.stop();
  });
  ::kill(::getpid(), SIGUSR1);
  loop.run();
  EXPECT_EQ(seen, SIGUSR1);
}

TEST(Inbox, RunsInTheLoopInOrderWhatOtherThreadsPost) {
  EventLoop loop;
  Inbox inbox(loop);
  std::vector<int> got;
  {
    Worker worker;
    for (int i = 0; i < 100; ++i)
      worker.post([&, i] {
        inbox.post([&, i] {
          got.push_back(i);
          if (i == 99) loop.stop();
        });
      });
    loop.run();
  }
  ASSERT_EQ(got.size(), 100u);
  EXPECT_TRUE(std::is_sorted(got.begin(), got.end()));
}

TEST(Worker, FinishesWhatIsQueuedBeforeItGoes) {
  int ran = 0;
  {
    Worker worker;
    for (int i = 0; i < 50; ++i) worker.post([&] { ++ran; });
  }
  EXPECT_EQ(ran, 50);
}

}  // namespace
}  // namespace bitctl
