#include "supervise/machine.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace bitctl {
namespace {

using enum State;
using enum Event;

State after(State state, std::initializer_list<Event> events) {
  for (const Event event : events)
    if (const auto t = transition(state, event)) state = t->next;
  return state;
}

TEST(Machine, ARunThatGoesWell) {
  EXPECT_EQ(after(waiting, {backoff_over, started, leader_exited, tree_gone, run_over, drained}), ended);
}

TEST(Machine, ADeadTrainerIsRestartedOnlyAfterItsTreeIsGone) {
  EXPECT_EQ(after(waiting, {backoff_over, started, leader_exited}), killing);
  EXPECT_EQ(after(killing, {restart_due, backoff_over, started}), killing)
      << "nothing starts while the tree lives";
  EXPECT_EQ(after(killing, {tree_gone, restart_due, backoff_over, started}), running);
}

TEST(Machine, CtrlCOnceStopsAtABoundaryTwiceAtOnce) {
  EXPECT_EQ(transition(running, stop_asked)->effect, Effect::request_stop);
  EXPECT_EQ(after(running, {stop_asked}), stopping);
  EXPECT_EQ(transition(stopping, stop_now)->effect, Effect::kill_tree);
  EXPECT_EQ(transition(stopping, grace_over)->effect, Effect::kill_tree);
}

TEST(Machine, AStopDuringBackOffEndsTheRun) {
  EXPECT_EQ(after(waiting, {stop_asked}), draining);
  EXPECT_EQ(after(waiting, {stop_asked, backoff_over}), draining) << "no attempt starts after a stop";
}

TEST(Machine, ARestartLeavesAtABoundaryAndTheNextAttemptStarts) {
  EXPECT_EQ(transition(running, restart_asked)->effect, Effect::request_restart);
  EXPECT_EQ(after(running, {restart_asked, leader_exited}), killing) << "its tree goes first";
  EXPECT_EQ(after(running, {restart_asked, leader_exited, tree_gone, restart_due, backoff_over, started}),
            running);
  EXPECT_EQ(transition(running, restart_now)->effect, Effect::kill_tree);
  EXPECT_EQ(transition(restarting, restart_now)->effect, Effect::kill_tree);
  EXPECT_EQ(transition(restarting, grace_over)->effect, Effect::kill_tree);
  EXPECT_EQ(after(waiting, {restart_asked}), starting) << "a back-off is cut short";
}

TEST(Machine, AStopDuringARestartStopsAtThatVeryBoundary) {
  EXPECT_EQ(after(running, {restart_asked, stop_asked}), stopping);
  EXPECT_EQ(transition(restarting, stop_asked)->effect, Effect::note_stop) << "it was asked to leave already";
  EXPECT_EQ(transition(restarting, stop_now)->effect, Effect::kill_tree);
}

TEST(Machine, ARestartChangesNothingOnceTheEndHasBegun) {
  for (const State state : {starting, stopping, killing, deciding, draining, ended})
    for (const Event event : {restart_asked, restart_now})
      EXPECT_FALSE(transition(state, event)) << name_of(state);
}

TEST(Machine, NothingHappensAfterTheEnd) {
  for (int e = 0; e <= static_cast<int>(drained); ++e) EXPECT_FALSE(transition(ended, static_cast<Event>(e)));
}

TEST(Machine, EveryStateCanReachTheEndAndEveryPairStandsOnce) {
  std::set<std::pair<int, int>> pairs;
  for (const Transition& t : transitions())
    EXPECT_TRUE(pairs.insert({static_cast<int>(t.state), static_cast<int>(t.event)}).second)
        << name_of(t.state) << " + " << name_of(t.event);
  for (int s = 0; s < static_cast<int>(ended); ++s) {
    std::set<State> reached = {static_cast<State>(s)};
    for (size_t before = 0; before != reached.size();) {
      before = reached.size();
      for (const Transition& t : transitions())
        if (reached.contains(t.state)) reached.insert(t.next);
    }
    EXPECT_TRUE(reached.contains(ended)) << name_of(static_cast<State>(s));
  }
}

TEST(Machine, NamesAreDistinct) {
  std::set<std::string_view> names;
  for (int s = 0; s <= static_cast<int>(ended); ++s)
    EXPECT_TRUE(names.insert(name_of(static_cast<State>(s))).second);
  for (int e = 0; e <= static_cast<int>(drained); ++e)
    EXPECT_TRUE(names.insert(name_of(static_cast<Event>(e))).second);
}

}  // namespace
}  // namespace bitctl
