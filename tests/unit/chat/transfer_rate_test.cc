#include "chat/transfer_rate.h"

#include <gtest/gtest.h>

namespace bitctl {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kMegabyte = 1'000'000;

class TransferRateTest : public testing::Test {
 protected:
  // So many megabytes a second, seen four times a second, up to `until`.
  void comes(uint64_t megabytes, seconds until) {
    for (; now < Mono(until); now += milliseconds(250)) rate.saw(now, bytes += megabytes * kMegabyte / 4);
  }
  std::string text(uint64_t total = 1000 * kMegabyte) const { return transfer_text(bytes, total, rate, now); }

  Mono now{};
  uint64_t bytes = 0;
  TransferRate rate;
};

TEST_F(TransferRateTest, NothingIsSaidBeforeItIsKnown) {
  EXPECT_EQ(text(), "[>         ] 0% (0.0GB / 1.0GB)");
  comes(40, seconds(1));
  EXPECT_EQ(rate.bytes_per_second(now), std::nullopt);
  EXPECT_EQ(text(), "[=>        ] 4% (0.0GB / 1.0GB)");
}

TEST_F(TransferRateTest, SmallFilesSayNothingOfALargeOne) {
  for (; now < Mono(seconds(4)); now += seconds(1)) rate.saw(now, bytes += 1000);
  EXPECT_EQ(rate.bytes_per_second(now), std::nullopt);
}

TEST_F(TransferRateTest, TheRestTakesAsLongAsItsRateSays) {
  comes(40, seconds(5));
  EXPECT_NEAR(*rate.bytes_per_second(now), 40e6, 2.1e6);
  EXPECT_EQ(text(), "[==>       ] 20% (0.2GB / 1.0GB), 38.0MB/s, 21s left");
}

TEST_F(TransferRateTest, TheLastSecondsCount) {
  comes(100, seconds(60));
  comes(1, seconds(70));
  EXPECT_NEAR(*rate.bytes_per_second(now), 1e6, 0.1e6);
}

TEST_F(TransferRateTest, WhatWasThereBeforeIsNoSpeed) {
  comes(10, seconds(4));
  EXPECT_NE(transfer_text(900 * kMegabyte, 1000 * kMegabyte, rate, now).find(", 9.4MB/s, 10s left"),
            std::string::npos)
      << transfer_text(900 * kMegabyte, 1000 * kMegabyte, rate, now);
}

TEST_F(TransferRateTest, AStallIsSaidAndPromisesNothing) {
  comes(40, seconds(5));
  now += seconds(4);
  EXPECT_EQ(rate.stalled(now), std::nullopt);
  EXPECT_TRUE(rate.bytes_per_second(now)) << "only slower";
  now += seconds(3);
  rate.saw(now, bytes);  // the same
  EXPECT_EQ(rate.bytes_per_second(now), std::nullopt);
  EXPECT_EQ(text(), "[==>       ] 20% (0.2GB / 1.0GB), stalled for 7s");
  comes(40, seconds(30));
  EXPECT_EQ(rate.stalled(now), std::nullopt);
}

TEST_F(TransferRateTest, NothingFromTheBeginIsAStall) {
  rate.saw(now, 0);
  now += seconds(6);
  EXPECT_EQ(text(), "[>         ] 0% (0.0GB / 1.0GB), stalled for 6s");
}

TEST_F(TransferRateTest, AnUnknownTotalPromisesNothing) {
  comes(40, seconds(5));
  EXPECT_EQ(text(0), "200.0MB, 38.0MB/s");
}

TEST_F(TransferRateTest, AtItsEndNothingIsLeft) {
  comes(40, seconds(5));
  EXPECT_EQ(text(bytes), "[==========] 100% (0.2GB / 0.2GB), 38.0MB/s");
}

}  // namespace
}  // namespace bitctl
