#include "chat/mailbox.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <thread>

namespace bitctl {
namespace {

TEST(Mailbox, EveryWakeUpHasSomethingAndNothingIsLost) {
  constexpr int kPairs = 20'000;
  Mailbox<int> mailbox;
  std::atomic<int> taken = 0;
  // The wake-up for the first may take the second, too. Then it is quiet, so that one for nothing shows.
  std::thread writer([&] {
    for (int i = 0; i < 2 * kPairs; i += 2) {
      mailbox.post(i);
      mailbox.post(i + 1);
      while (taken < i + 2) std::this_thread::yield();
      for (int quiet = 0; quiet < 50; ++quiet) std::this_thread::yield();
    }
  });
  int empty = 0;
  while (taken < 2 * kPairs) {
    pollfd readable{mailbox.fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&readable, 1, -1), 1);
    const auto values = mailbox.take();
    empty += static_cast<int>(values.empty());
    for (const int value : values) EXPECT_EQ(value, taken++);
  }
  writer.join();
  EXPECT_EQ(empty, 0);
}

}  // namespace
}  // namespace bitctl
