#include "watch/save_watch.h"

#include <gtest/gtest.h>

namespace bitctl {
namespace {

using std::chrono::seconds;

// The second in which it speaks, of `most`; 0 where it does not.
int told_after(SaveWatch& watch, int most, Duration longest_save = {}) {
  for (int i = 1; i <= most; ++i)
    if (watch.look(true, longest_save)) return i;
  return 0;
}

TEST(SaveWatch, SpeaksOnceAfterAMinute) {
  SaveWatch watch;
  EXPECT_EQ(told_after(watch, 1000), 60);
  EXPECT_EQ(told_after(watch, 1000), 0);
}

TEST(SaveWatch, GivesThreeTimesTheLongestSave) {
  SaveWatch watch;
  EXPECT_EQ(told_after(watch, 1000, seconds(50)), 150);
}

TEST(SaveWatch, BeginsAnewWithEachSave) {
  SaveWatch watch;
  EXPECT_EQ(told_after(watch, 59), 0);
  watch.saved();
  EXPECT_EQ(told_after(watch, 59), 0);
  EXPECT_EQ(told_after(watch, 1), 1);
  watch.saved();
  EXPECT_EQ(told_after(watch, 1000), 60);
}

TEST(SaveWatch, NothingIsWaitedForWhereAllIsSaved) {
  SaveWatch watch;
  EXPECT_EQ(told_after(watch, 59), 0);
  EXPECT_FALSE(watch.look(false, {}));
  EXPECT_EQ(told_after(watch, 59), 0);
}

}  // namespace
}  // namespace bitctl
