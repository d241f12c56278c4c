#include "chat/model_files.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

using testing::HasSubstr;

class ModelFilesTest : public testing::Test {
 protected:
  std::string weights(const std::string& path) { return ModelFilesTest::find(path).weights; }
  static ModelFiles find(const std::string& path) {
    auto found = find_model_files(path);
    return found ? *found : ModelFiles{found.error().message, "", ""};
  }

  TemporaryFolder folder_;
};

TEST_F(ModelFilesTest, AFileIsItselfAndItsFolderHoldsTheRest) {
  const std::string path = folder_.write("smollm/model.safetensors", "");
  const ModelFiles files = find(path);
  EXPECT_EQ(files.name, "model");
  EXPECT_EQ(files.weights, path);
  EXPECT_EQ(files.folder, folder_ / "smollm");
}

TEST_F(ModelFilesTest, AFolderIsNamedAfterItself) {
  folder_.write("smollm/model.safetensors", "");
  EXPECT_EQ(find(folder_ / "smollm").name, "smollm");
  EXPECT_EQ(find(folder_ / "smollm/").name, "smollm");
  EXPECT_EQ(find(folder_ / "smollm/../smollm/.").name, "smollm");
}

TEST_F(ModelFilesTest, ARunIsItsModelElseItsNewestWholeStep) {
  folder_.write("run/checkpoints/step-000000090/model.safetensors", "");
  folder_.write("run/checkpoints/step-000000120/model.safetensors", "");
  folder_.write("run/checkpoints/step-000000200/manifest.json", "");
  folder_.write("run/checkpoints/.tmp-step-000000300/model.safetensors", "");
  EXPECT_EQ(weights(folder_ / "run"), folder_ / "run/checkpoints/step-000000120/model.safetensors");
  folder_.write("run/model/model.safetensors", "");
  EXPECT_EQ(weights(folder_ / "run"), folder_ / "run/model/model.safetensors");
  std::filesystem::create_directory_symlink(folder_ / "run", folder_ / "latest");
  EXPECT_EQ(find(folder_ / "latest").name, "run");
}

TEST_F(ModelFilesTest, WhatIsNoModelSaysWhatIsMissing) {
  EXPECT_THAT(find(folder_ / "nowhere").name, HasSubstr("nowhere: no such file, folder or run"));
  EXPECT_THAT(find(folder_.path()).name, HasSubstr("no model.safetensors, no model/ and no checkpoint"));
  EXPECT_THAT(find(folder_.write("model.bin", "")).name, HasSubstr("not a .safetensors file"));
  folder_.write("sharded/model.safetensors.index.json", "{}");
  EXPECT_THAT(find(folder_ / "sharded").name, HasSubstr("several files are not supported"));
}

}  // namespace
}  // namespace bitctl
