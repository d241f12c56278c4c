// The proof by enumeration: no power cut, at any instant, in any order of what was not synced, costs a
// checkpoint. tests/tools/crash_states.cc is the long form.
#include "checkpoint/crash_states.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bitctl {
namespace {

using Kind = FileOp::Kind;

TEST(CrashModel, WhatIsNotSyncedMayBeThereOrNot) {
  CrashModel model(Tree{{"old", "1"}});
  model.apply({.kind = Kind::open, .path = "new", .handle = 1, .created = true});
  model.apply({.kind = Kind::write, .handle = 1, .bytes = "22"});
  EXPECT_EQ(model.pending(), 4u);  // the name, the size, two pieces
  EXPECT_EQ(model.state({false, true, true, true}), (Tree{{"old", "1"}})) << "bytes without a name";
  EXPECT_EQ(model.state({true, false, true, true}), (Tree{{"new", ""}, {"old", "1"}}))
      << "a name, and bytes behind the end";
  EXPECT_EQ(model.state({true, true, false, true}, 'x'), (Tree{{"new", "x2"}, {"old", "1"}})) << "torn";
  EXPECT_EQ(model.seen(), (Tree{{"new", "22"}, {"old", "1"}}));
}

TEST(CrashModel, AnFsyncOfAFileIsNotOneOfItsName) {
  CrashModel model(Tree{});
  model.apply({.kind = Kind::open, .path = "f", .handle = 1, .created = true});
  model.apply({.kind = Kind::write, .handle = 1, .bytes = "22"});
  model.apply({.kind = Kind::fsync, .handle = 1});
  EXPECT_EQ(model.pending(), 1u);
  EXPECT_EQ(model.state({false}), Tree{});
  model.apply({.kind = Kind::open, .path = "", .handle = 2});
  model.apply({.kind = Kind::fsync, .handle = 2});
  EXPECT_EQ(model.pending(), 0u);
  EXPECT_EQ(model.state({}), (Tree{{"f", "22"}}));
}

TEST(CrashModel, ARenameIsAtomicAndAFailedFsyncPromisesNothingEver) {
  CrashModel model(Tree{{"a", "1"}, {"b", "2"}});
  model.apply({.kind = Kind::exchange, .path = "a", .to = "b"});
  model.apply({.kind = Kind::open, .path = "", .handle = 1});
  model.apply({.kind = Kind::fsync, .handle = 1, .failed = true});
  model.apply({.kind = Kind::fsync, .handle = 1});
  EXPECT_EQ(model.pending(), 1u) << "the second fsync says nothing about what the first one lost";
  EXPECT_EQ(model.state({false}), (Tree{{"a", "1"}, {"b", "2"}}));
  EXPECT_EQ(model.state({true}), (Tree{{"a", "2"}, {"b", "1"}}));
}

TEST(CrashStates, NoSaveLosesAnything) {
  for (const CrashCase& crash_case : save_cases()) {
    const CrashCounts counts = try_every_crash(crash_case, {});
    EXPECT_EQ(counts.violations(), 0u) << counts.first;
    EXPECT_GT(counts.distinct, 30u) << crash_case.name << ": too few states to mean anything";
  }
}

TEST(CrashStates, NorDoesTheWriterAfterAKill) {
  for (const CrashCase& crash_case : save_cases())
    for (const CrashCase& again : killed_and_saved_again(crash_case, 11)) {
      const CrashCounts counts = try_every_crash(again, {.all_up_to = 1, .random = 2});
      EXPECT_EQ(counts.violations(), 0u) << counts.first;
    }
}

TEST(CrashStates, NorDoesASaveThatFails) {
  for (const CrashCase& crash_case : failing_cases(EIO, 4)) {
    const CrashCounts counts = try_every_crash(crash_case, {.all_up_to = 2, .random = 2});
    EXPECT_EQ(counts.violations(), 0u) << counts.first;
  }
}

TEST(CrashStates, EveryKnownBadProtocolIsFlagged) {
  for (const CrashCase& twin : bad_twins())
    EXPECT_GT(try_every_crash(twin, {.one_is_enough = true}).violations(), 0u) << twin.name;
}

// Each fsync of a save is there for a reason: without it some crash costs something.
TEST(CrashStates, NoFsyncCanBeLeftOut) {
  const auto cases = save_cases();
  const auto retention =
      std::find_if(cases.begin(), cases.end(), [](const auto& c) { return c.name == "save and retention"; });
  int fsyncs = 0;
  for (size_t at = 0; at < retention->log.size(); ++at) {
    if (retention->log[at].kind != Kind::fsync) continue;
    ++fsyncs;
    CrashCase without = *retention;
    without.log.erase(without.log.begin() + static_cast<ptrdiff_t>(at));
    EXPECT_GT(try_every_crash(without, {.all_up_to = 4, .random = 20, .one_is_enough = true}).violations(),
              0u)
        << "call " << at << " of " << without.log.size();
  }
  EXPECT_GE(fsyncs,
            7);  // two files, the manifest, the stage, the parent; and the parent for each of two deletions
}

}  // namespace
}  // namespace bitctl
