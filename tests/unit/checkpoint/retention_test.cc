#include "checkpoint/retention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "checkpoint/catalog.h"
#include "checkpoint/folders.h"
#include "checkpoint/pins.h"
#include "failing_file_ops.h"
#include "step_image.h"
#include "temporary_folder.h"

namespace bitctl {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

RetentionEntry good(uint64_t step, std::optional<double> metric = std::nullopt) {
  return {.step = step, .valid = true, .verified = true, .metric = metric};
}

std::vector<RetentionEntry> valid(std::initializer_list<uint64_t> steps) {
  std::vector<RetentionEntry> entries;
  for (const uint64_t step : steps) entries.push_back(good(step));
  return entries;
}

TEST(Retention, KeepsTheLastN) {
  EXPECT_THAT(steps_to_delete(valid({10, 20, 30, 40, 50}), {.keep_last = 2}), ElementsAre(10, 20, 30));
  EXPECT_THAT(steps_to_delete(valid({50, 10, 40, 30, 20}), {.keep_last = 2}), ElementsAre(10, 20, 30))
      << "order does not matter";
  EXPECT_THAT(steps_to_delete(valid({10}), {.keep_last = 3}), IsEmpty());
  EXPECT_THAT(steps_to_delete(valid({10, 20}), {.keep_last = 0}), ElementsAre(10))
      << "the newest always stays";
}

TEST(Retention, StepsAreNumbersNotText) {
  EXPECT_THAT(steps_to_delete(valid({9, 10, 100}), {.keep_last = 1}), ElementsAre(9, 10));
}

TEST(Retention, ABrokenNewerOneDoesNotCount) {
  auto entries = valid({10, 20});
  entries.push_back({.step = 30});
  EXPECT_THAT(steps_to_delete(entries, {.keep_last = 1}), ElementsAre(10));
}

TEST(Retention, KeepsTheBestButNeverANaN) {
  std::vector<RetentionEntry> entries = {good(10, 0.2), good(20, 0.1), good(30, NAN), good(40, 0.5),
                                         good(50, 0.9)};
  entries[1].non_finite = true;
  const RetentionPolicy policy{.keep_last = 1, .keep_best = BestMetric{"loss", true, 1}};
  EXPECT_THAT(steps_to_delete(entries, policy), ElementsAre(20, 30, 40));
  const RetentionPolicy highest{.keep_last = 1, .keep_best = BestMetric{"score", false, 2}};
  EXPECT_THAT(steps_to_delete(entries, highest), ElementsAre(10, 20, 30));
}

TEST(Retention, ATieGoesToTheNewer) {
  const std::vector<RetentionEntry> entries = {good(10, 0.5), good(20, 0.5), good(30, 0.9)};
  EXPECT_THAT(steps_to_delete(entries, {.keep_last = 1, .keep_best = BestMetric{"loss", true, 1}}),
              ElementsAre(10));
}

TEST(Retention, KeepsEveryKthWhatIsInUseAndWhatIsPinned) {
  auto entries = valid({10, 20, 25, 30, 40, 50});
  entries[2].pinned = true;
  entries[3].in_use = true;
  EXPECT_THAT(steps_to_delete(entries, {.keep_last = 1, .keep_every = 20}), ElementsAre(10));
}

TEST(Retention, NothingGoesBeforeOneIsVerified) {
  auto entries = valid({10, 20, 30});
  for (RetentionEntry& e : entries) e.verified = false;
  EXPECT_THAT(steps_to_delete(entries, {.keep_last = 1}), IsEmpty());
  entries[1].verified = true;
  EXPECT_THAT(steps_to_delete(entries, {.keep_last = 1}), ElementsAre(10)) << "and that one stays";
}

// A folder of a run with steps that were really saved; some stand there that are not its own.
class RetentionInAFolder : public testing::Test {
 protected:
  void save(uint64_t step, const std::string& run = "test-run") {
    TestStep one(step);
    one.image.run = run;
    ASSERT_TRUE(save_step(folder_.path(), one.image, {}));
  }
  std::vector<uint64_t> standing() {
    std::vector<uint64_t> steps;
    for (const StepFolder& folder : step_folders(folder_.path())) steps.push_back(folder.step);
    return steps;
  }
  std::string path_of(uint64_t step) { return folder_ / step_folder_name(step); }
  void damage(uint64_t step) {  // a bit, so that no size tells
    std::fstream file(path_of(step) + "/model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(5000);
    file.put('!');
  }

  TemporaryFolder folder_;
  RetentionPolicy last_one_{.keep_last = 1};
  RetentionScope scope_{.run = "test-run", .verified = {30}};
};

TEST_F(RetentionInAFolder, PinsAreSeenAndTakenAwayAgain) {
  for (const uint64_t step : {10, 20, 30}) save(step);
  ASSERT_TRUE(pin_step(folder_.path(), 10));
  ASSERT_TRUE(pin_step(folder_.path(), 10));
  EXPECT_THAT(retain(folder_.path(), last_one_, scope_).deleted, ElementsAre(20));
  ASSERT_TRUE(unpin_step(folder_.path(), 10));
  ASSERT_TRUE(unpin_step(folder_.path(), 10));
  EXPECT_THAT(retain(folder_.path(), last_one_, scope_).deleted, ElementsAre(10));
  EXPECT_THAT(standing(), ElementsAre(30));
}

TEST_F(RetentionInAFolder, APinIsDurableWhenItIsToldSo) {
  save(10);
  FailingFileOps ops;
  ASSERT_TRUE(pin_step(folder_.path(), 10, ops));
  EXPECT_THAT(ops.calls(), ElementsAre("open", "close", "open", "fsync", "close"));
  FailingFileOps failing(1, EIO, FailingFileOps::How::once, "fsync");
  EXPECT_FALSE(pin_step(folder_.path(), 10, failing));
}

TEST_F(RetentionInAFolder, APinOutlivesAStepThatIsWrittenAnew) {
  save(10);
  ASSERT_TRUE(pin_step(folder_.path(), 10));
  ASSERT_TRUE(save_step(folder_.path(), TestStep(10, 'b').image, {}));
  EXPECT_TRUE(is_pinned(folder_.path(), 10));
}

TEST_F(RetentionInAFolder, WhatIsNotOursStays) {
  namespace fs = std::filesystem;
  save(10);
  save(20, "another-run");
  save(30);
  const std::string foreign = folder_ / step_folder_name(5);
  fs::create_directory(foreign);
  fs::create_directory(folder_ / "step-7");
  TemporaryFolder elsewhere;
  save(15);
  fs::rename(path_of(15), elsewhere / "theirs");
  fs::create_symlink(elsewhere / "theirs", path_of(15));
  EXPECT_THAT(retain(folder_.path(), last_one_, scope_).deleted, ElementsAre(10));
  EXPECT_THAT(standing(), ElementsAre(30, 20, 15, 5));
  EXPECT_TRUE(fs::exists(folder_ / "step-7"));
  EXPECT_TRUE(fs::exists(elsewhere / "theirs/model.safetensors"));
}

TEST_F(RetentionInAFolder, OfALinkOnlyTheLinkIsRemoved) {
  TemporaryFolder elsewhere;
  elsewhere.write("kept", "x");
  std::filesystem::create_symlink(elsewhere.path(), path_of(15));
  EXPECT_TRUE(remove_folder(path_of(15)));
  EXPECT_THAT(standing(), IsEmpty());
  EXPECT_EQ(read_text(elsewhere / "kept"), "x");
}

TEST_F(RetentionInAFolder, GoesAsTrashAndOldestFirst) {
  for (const uint64_t step : {20, 10, 30}) save(step);
  FailingFileOps ops;
  EXPECT_THAT(retain(folder_.path(), last_one_, scope_, ops).deleted, ElementsAre(10, 20));
  ASSERT_GE(ops.log().size(), 3u);
  EXPECT_THAT(ops.log()[0], testing::StartsWith("rename .trash-step-000000010-"));
  EXPECT_EQ(ops.calls()[2], "fsync") << "the name is gone for good before the content is";
  EXPECT_THAT(std::vector(ops.calls().begin(), ops.calls().begin() + 3),
              testing::Not(testing::Contains("unlink")));
}

TEST_F(RetentionInAFolder, UnderDiskPressureNoMoreGoesThanIsNeeded) {
  for (const uint64_t step : {10, 20, 25, 30}) save(step);
  const auto policy = under_disk_pressure({.keep_last = 4, .keep_every = 25});
  EXPECT_THAT(retain(folder_.path(), policy, scope_, system_file_ops(), 1).deleted, ElementsAre(10));
  EXPECT_THAT(retain(folder_.path(), policy, scope_, system_file_ops(), 1 << 30).deleted, ElementsAre(20));
  EXPECT_THAT(standing(), ElementsAre(30, 25));
}

TEST_F(RetentionInAFolder, TheNewestThatIsGoodIsFoundByReading) {
  for (const uint64_t step : {10, 20, 30}) save(step);
  damage(30);
  scope_.verified.clear();
  EXPECT_EQ(find_verified(folder_.path(), scope_), 20u);
  scope_.verified = {30};
  EXPECT_EQ(find_verified(folder_.path(), scope_), 30u) << "what is known is not read again";
  scope_.verified.clear();
  damage(20);
  damage(10);
  EXPECT_EQ(find_verified(folder_.path(), scope_), std::nullopt);
  EXPECT_THAT(retain(folder_.path(), last_one_, scope_).deleted, IsEmpty());
}

TEST(Catalog, StepFolderNames) {
  EXPECT_EQ(step_folder_name(120), "step-000000120");
  EXPECT_EQ(step_folder_name(12345678901), "step-12345678901");
  EXPECT_EQ(step_of_folder_name("step-000000120"), 120u);
  EXPECT_EQ(step_of_folder_name("step-12345678901"), 12345678901u);
  for (const char* name : {"step-120", "step-", "step-00000012x", "step-0000000120", ".tmp-step-000000120",
                           "step-99999999999999999999999", "xstep-000000120"})
    EXPECT_EQ(step_of_folder_name(name), std::nullopt) << name;
}

}  // namespace
}  // namespace bitctl
