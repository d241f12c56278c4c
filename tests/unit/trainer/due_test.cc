#include "trainer/due.h"

#include <gtest/gtest.h>

namespace bitctl::trainer {
namespace {

TEST(Due, StepsAreTheRunsNotTheAttempts) {
  Due due(Json{{"steps", 10}});
  EXPECT_FALSE(due.is_due(7, 0, 0)) << "resumed at 6";
  EXPECT_TRUE(due.is_due(10, 0, 0));
  EXPECT_TRUE(due.is_due(11, 0, 0)) << "no slot was free";
  due.taken(11, 0, 0);
  EXPECT_FALSE(due.is_due(19, 1000, 0));
  EXPECT_TRUE(due.is_due(20, 1000, 0));
}

TEST(Due, Seconds) {
  Due due(Json{{"seconds", 2.5}});
  EXPECT_FALSE(due.is_due(1, 100, 0));
  EXPECT_FALSE(due.is_due(2, 102, 0));
  EXPECT_TRUE(due.is_due(3, 102.5, 0));
}

TEST(Due, AutoSpendsAHundredthOnCopiesAndATenthOnWriting) {
  EXPECT_EQ(auto_interval(0.001, 0.1), 30);
  EXPECT_EQ(auto_interval(1, 0.1), 100);
  EXPECT_EQ(auto_interval(0.001, 20), 200);
  EXPECT_EQ(auto_interval(0.001, 200), 600);
  Due due(Json{{"auto", true}});
  EXPECT_FALSE(due.is_due(1, 0, 5));
  EXPECT_TRUE(due.is_due(2, 50, 5));
  due.taken(2, 50, 1);
  EXPECT_FALSE(due.is_due(3, 149, 5));
  EXPECT_TRUE(due.is_due(4, 150, 5));
}

}  // namespace
}  // namespace bitctl::trainer
