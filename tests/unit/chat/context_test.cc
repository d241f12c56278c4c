#include "chat/context.h"

#include <gmock/gmock.h>

namespace bitctl {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

TEST(Context, LeavesRoomForAnAnswerByLeavingTheOldestOut) {
  EXPECT_EQ(plan_context(50, 100, 1024, WhenFull::drop, true), ContextPlan::fits);
  EXPECT_EQ(plan_context(75, 100, 1024, WhenFull::drop, true), ContextPlan::fits);
  EXPECT_EQ(plan_context(76, 100, 1024, WhenFull::drop, true), ContextPlan::drop_oldest);
  EXPECT_EQ(plan_context(90, 100, 10, WhenFull::drop, true), ContextPlan::fits) << "no more is asked for";
  EXPECT_EQ(plan_context(500, 100, 10, WhenFull::drop, true), ContextPlan::drop_oldest);
}

TEST(Context, WhatCannotBeShortenedFitsOrDoesNot) {
  for (const auto& [when_full, droppable] :
       {std::pair{WhenFull::drop, false}, {WhenFull::stop, true}, {WhenFull::stop, false}}) {
    EXPECT_EQ(plan_context(99, 100, 1024, when_full, droppable), ContextPlan::fits);
    EXPECT_EQ(plan_context(100, 100, 1024, when_full, droppable), ContextPlan::too_long);
  }
}

TEST(Context, IsWarnedOfFromEightyPercentOn) {
  EXPECT_THAT(context_warning(79, 100, WhenFull::drop), IsEmpty());
  EXPECT_THAT(context_warning(80, 100, WhenFull::drop),
              HasSubstr("80% of the context is used (80 of 100 tokens)"));
  EXPECT_THAT(context_warning(80, 100, WhenFull::drop), HasSubstr("the oldest messages are left out"));
  EXPECT_THAT(context_warning(100, 100, WhenFull::stop), HasSubstr("/clear begins a new conversation"));
}

}  // namespace
}  // namespace bitctl
