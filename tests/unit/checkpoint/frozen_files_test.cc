// What is frozen is linked from the step before, where the disk holds the same; where it does not, written.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "checkpoint/catalog.h"
#include "checkpoint/commit.h"
#include "checkpoint/folders.h"
#include "checkpoint/retention.h"
#include "failing_file_ops.h"
#include "step_image.h"
#include "temporary_folder.h"

namespace bitctl {
namespace {

using testing::Contains;
using testing::Not;
using How = FailingFileOps::How;

constexpr uint64_t kFileBytes = 4096 + 3000 * 4 + 3;  // of a part, header included

class FrozenFiles : public testing::Test {
 protected:
  Saved save(const TestStep& step, FileOps* ops = nullptr) {
    SaveOptions options;
    options.ops = ops;
    auto saved = save_step(folder_.path(), step.image, options);
    EXPECT_TRUE(saved) << saved.error().message;
    return saved ? *saved : Saved{};
  }
  std::string path(uint64_t step, const std::string& name = kFrozenPart) const {
    return folder_ / step_folder_name(step) + "/" + name;
  }
  bool is_shared(uint64_t a, uint64_t b, const std::string& name = kFrozenPart) const {
    return std::filesystem::equivalent(path(a, name), path(b, name));
  }
  bool verifies(uint64_t step) const {
    return verify_step({step, folder_ / step_folder_name(step)}).has_value();
  }
  // Neither its size nor its name tells of it.
  void damage(const std::string& file, std::streamoff byte) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(byte);
    stream.put('!');
  }

  TemporaryFolder folder_;
};

TEST_F(FrozenFiles, AreLinkedAndTheRestIsWritten) {
  const Saved first = save(TestStep::with_frozen(1, 'a'));
  const Saved second = save(TestStep::with_frozen(2, 'b'));
  EXPECT_TRUE(is_shared(1, 2));
  for (const char* written : {kTrainedPart, kTrainingFile, kManifestName, kModelIndex})
    EXPECT_FALSE(is_shared(1, 2, written)) << written;
  EXPECT_TRUE(verifies(1));
  EXPECT_TRUE(verifies(2));
  EXPECT_EQ(second.manifest.bytes(), first.manifest.bytes());
  EXPECT_EQ(second.written, first.written - kFileBytes);
  EXPECT_EQ(second.damaged, "");
}

TEST_F(FrozenFiles, TheIndexSaysWhichPartHoldsWhat) {
  save(TestStep::with_frozen(1));
  EXPECT_EQ(read_text(path(1, kModelIndex)),
            R"({"metadata":{"total_size":24006},"weight_map":{"b":"model-00002-of-00002.safetensors",)"
            R"("frozen.b":"model-00001-of-00002.safetensors","frozen.w":"model-00001-of-00002.safetensors",)"
            R"("w":"model-00002-of-00002.safetensors"}})"
            "\n");
  damage(path(1, kModelIndex), 3);
  EXPECT_FALSE(verifies(1)) << "its digest is in the manifest";
}

TEST_F(FrozenFiles, ALinkIsSyncedWithTheRest) {
  save(TestStep::with_frozen(1, 'a'));
  FailingFileOps ops;
  save(TestStep::with_frozen(2, 'b'), &ops);
  const auto& log = ops.log();
  const auto at = [&](const std::string& call) {
    return std::find(log.begin(), log.end(), call) - log.begin();
  };
  EXPECT_THAT(log, Contains("link " + std::string(kFrozenPart)));
  EXPECT_THAT(log, Not(Contains("pwrite " + std::string(kFrozenPart))));
  // Somebody's copy of a run may be nowhere but in the page cache.
  EXPECT_LT(at("fsync " + std::string(kFrozenPart)), at("fsync manifest.json"));
}

TEST_F(FrozenFiles, WhatTheDiskHasSpoiledIsWrittenAnewAndNamed) {
  for (const uint64_t byte : {uint64_t{0}, uint64_t{4095}, uint64_t{4096 + 5000}, kFileBytes - 1}) {
    const TemporaryFolder folder;
    ASSERT_TRUE(save_step(folder.path(), TestStep::with_frozen(1, 'a').image, {}));
    const std::string old = folder / step_folder_name(1) + "/" + kFrozenPart;
    damage(old, static_cast<std::streamoff>(byte));
    const auto saved = save_step(folder.path(), TestStep::with_frozen(2, 'b').image, {});
    ASSERT_TRUE(saved);
    EXPECT_EQ(saved->damaged, old) << byte;
    EXPECT_TRUE(verify_step({2, folder / step_folder_name(2)})) << byte;
    const auto third = save_step(folder.path(), TestStep::with_frozen(3, 'c').image, {});
    EXPECT_LT(third->written, saved->written) << "the good one is linked again";
  }
}

TEST_F(FrozenFiles, WhatHasChangedAfterAllIsWritten) {
  save(TestStep::with_frozen(1, 'a', 3000, 'f'));
  const Saved second = save(TestStep::with_frozen(2, 'b', 3000, 'g'));
  EXPECT_FALSE(is_shared(1, 2));
  EXPECT_EQ(second.damaged, "") << "nothing is wrong with the older one";
  const Saved third = save(TestStep::with_frozen(3, 'c', 2000, 'g'));
  EXPECT_EQ(third.damaged, "") << "another size";
  for (const uint64_t step : {1, 2, 3}) EXPECT_TRUE(verifies(step));
}

TEST_F(FrozenFiles, NothingElseIsLinked) {
  save(TestStep(1, 'a'));
  save(TestStep(2, 'a'));
  EXPECT_FALSE(is_shared(1, 2, kModelFile)) << "nobody says that it is frozen";
  TestStep others = TestStep::with_frozen(3, 'a');
  others.image.run = "another-run";
  save(others);
  save(TestStep::with_frozen(4, 'a'));
  EXPECT_FALSE(is_shared(3, 4)) << "another run's";
}

TEST_F(FrozenFiles, TheNewestStepServes) {
  save(TestStep::with_frozen(1, 'a'));
  damage(path(1), 5000);
  save(TestStep::with_frozen(2, 'b'));
  std::filesystem::create_directory(folder_ / step_folder_name(3));  // one that is no step
  save(TestStep::with_frozen(4, 'c'));
  EXPECT_TRUE(is_shared(2, 4));
  save(TestStep::with_frozen(4, 'd'));
  EXPECT_TRUE(is_shared(2, 4)) << "also from a step that is being replaced";
  EXPECT_TRUE(verifies(4));
}

TEST_F(FrozenFiles, ALinkThatCannotBeMadeCostsAWriteAndNoSave) {
  save(TestStep::with_frozen(1, 'a'));
  uint64_t step = 1;
  for (const auto& [call, error] :
       {std::pair("link", EMLINK), std::pair("link", EXDEV), std::pair("pread", EIO)}) {
    FailingFileOps ops(1, error, How::once, call);
    const Saved saved = save(TestStep::with_frozen(++step, 'b'), &ops);
    EXPECT_TRUE(ops.has_failed()) << call;
    EXPECT_FALSE(is_shared(step - 1, step)) << call;
    EXPECT_TRUE(verifies(step)) << call;
    EXPECT_EQ(saved.damaged, error == EIO ? path(step - 1) : "")
        << "a sector that cannot be read is damage, too";
  }
}

TEST_F(FrozenFiles, AStepThatGoesFreesOnlyWhatNobodySharesWithIt) {
  save(TestStep::with_frozen(1, 'a'));
  save(TestStep::with_frozen(2, 'b'));
  const uint64_t own = bytes_freed_by({folder_ / step_folder_name(1)});
  EXPECT_EQ(own, 2 * 4096 + 3000 * 4 + 3 + 10 * 4 + 3 + std::filesystem::file_size(path(1, kManifestName)) +
                     std::filesystem::file_size(path(1, kModelIndex)));
  EXPECT_EQ(bytes_freed_by({folder_ / step_folder_name(1), folder_ / step_folder_name(2)}),
            own + bytes_freed_by({folder_ / step_folder_name(2)}) + kFileBytes)
      << "together they take it with them";
  const Retained done = retain(folder_.path(), {.keep_last = 1}, {"test-run", {}, {2}});
  EXPECT_EQ(done.deleted, std::vector<uint64_t>{1});
  EXPECT_EQ(done.bytes, own);
  EXPECT_TRUE(verifies(2));
}

TEST_F(FrozenFiles, TheFinishedModelHasAllParts) {
  const std::string checkpoints = folder_ / "checkpoints";
  std::filesystem::create_directory(checkpoints);
  ASSERT_TRUE(save_step(checkpoints, TestStep::with_frozen(1).image, {}));
  ASSERT_TRUE(publish_model(folder_.path(), checkpoints + "/" + step_folder_name(1)));
  for (const char* name : {kFrozenPart, kTrainedPart, kModelIndex})
    EXPECT_TRUE(std::filesystem::exists(folder_ / "model/" + name)) << name;
  EXPECT_FALSE(std::filesystem::exists(folder_ / "model/" + kTrainingFile));
}

TEST(ModelFile, IsTheModelOrAPartOfIt) {
  for (const char* name : {"model.safetensors", kFrozenPart, "model-00012-of-00345.safetensors"})
    EXPECT_TRUE(is_model_file(name)) << name;
  for (const char* name : {"training.safetensors", "model", "", "model-1-of-2.safetensors", kModelIndex,
                           "model-0000a-of-00002.safetensors", "model-00001-of-00002.safetensors2"})
    EXPECT_FALSE(is_model_file(name)) << name;
}

}  // namespace
}  // namespace bitctl
