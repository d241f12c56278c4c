#include "chat/model_files.h"

#include <fmt/ranges.h>
#include <gmock/gmock.h>

#include <filesystem>

#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

class ModelFilesTest : public testing::Test {
 protected:
  std::string weights(const std::string& path) {
    return fmt::format("{}", fmt::join(find(path).weights, " "));
  }
  static ModelFiles find(const std::string& path) { return find_choice({.path = path}); }
  static ModelFiles find_choice(const ModelChoice& choice) {
    auto found = find_model_files(choice);
    return found ? *found : ModelFiles{found.error().message, {}, ""};
  }

  TemporaryFolder folder_;
};

TEST_F(ModelFilesTest, AFileIsItselfAndItsFolderHoldsTheRest) {
  const std::string path = folder_.write("smollm/model.safetensors", "");
  const ModelFiles files = find(path);
  EXPECT_EQ(files.name, "model");
  EXPECT_THAT(files.weights, ElementsAre(path));
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

TEST_F(ModelFilesTest, AStepOfARunIsNamedAndTheNewestIsOneEvenWhereTheRunHasFinished) {
  folder_.write("run/checkpoints/step-000000090/model.safetensors", "");
  folder_.write("run/checkpoints/step-000000120/model.safetensors", "");
  folder_.write("run/model/model.safetensors", "");
  const std::string run = folder_ / "run";
  const ModelFiles step = find_choice({.path = run, .step = 90});
  EXPECT_EQ(step.name, "run (step 90)");
  EXPECT_EQ(step.run, run);
  EXPECT_EQ(step.folder, run + "/checkpoints/step-000000090");
  EXPECT_EQ(find_choice({.path = run, .newest_step = true}).name, "run (step 120)");
  EXPECT_EQ(find(run).name, "run");
  EXPECT_THAT(find_choice({.path = run, .step = 91}).name,
              HasSubstr("no checkpoint of step 91; there are 120, 90"));
  EXPECT_THAT(find_choice({.path = run + "/model", .step = 90}).name,
              HasSubstr("not a run, so it has no steps"));
}

TEST_F(ModelFilesTest, WhatIsNoModelSaysWhatIsMissing) {
  EXPECT_THAT(find(folder_ / "nowhere").name, HasSubstr("nowhere: no such file, folder or run"));
  EXPECT_THAT(find(folder_.path()).name, HasSubstr("no model.safetensors, no model/ and no checkpoint"));
  EXPECT_THAT(find(folder_.write("model.bin", "")).name, HasSubstr("not a .safetensors file"));
}

TEST_F(ModelFilesTest, AModelInPartsIsWhatItsIndexNames) {
  const std::string one = folder_.write("parts/model-00001-of-00002.safetensors", "");
  const std::string two = folder_.write("parts/model-00002-of-00002.safetensors", "");
  folder_.write("parts/training.safetensors", "");
  folder_.write("parts/model.safetensors.index.json",
                R"({"metadata": {}, "weight_map": {"a": "model-00002-of-00002.safetensors",
      "b": "model-00001-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"}})");
  const ModelFiles files = find(folder_ / "parts");
  EXPECT_EQ(files.name, "parts");
  EXPECT_THAT(files.weights, ElementsAre(one, two));
  EXPECT_THAT(find(two).weights, ElementsAre(one, two)) << "one part stands for all";
  std::filesystem::create_directories(folder_ / "run/checkpoints");
  std::filesystem::rename(folder_ / "parts", folder_ / "run/checkpoints/step-000000007");
  EXPECT_THAT(find(folder_ / "run").weights, SizeIs(2));
  std::filesystem::remove(folder_ / "run/checkpoints/step-000000007/model-00001-of-00002.safetensors");
  EXPECT_THAT(find(folder_ / "run").name, HasSubstr("model-00001-of-00002.safetensors: no such file"));
}

TEST_F(ModelFilesTest, AnIndexThatIsNoneIsRefused) {
  const auto refusal = [&](const std::string& index) {
    folder_.write("parts/model.safetensors.index.json", index);
    return find(folder_ / "parts").name;
  };
  EXPECT_THAT(refusal("{"), HasSubstr("index.json: byte "));
  for (const char* none : {"{}", "[]", R"({"weight_map": {}})", R"({"weight_map": 3})"})
    EXPECT_THAT(refusal(none), HasSubstr("no weight_map that names files")) << none;
  folder_.write("elsewhere.safetensors", "");
  for (const char* place : {R"("../elsewhere.safetensors")", R"("model.bin")", "3"})
    EXPECT_THAT(refusal(R"({"weight_map": {"w": )" + std::string(place) + "}}"),
                HasSubstr("\"w\" is not said to be in a .safetensors file"))
        << place;
}

// An adapter, its base's name as adapter_config.json has it.
void write_adapter(TemporaryFolder& folder, const std::string& name, const std::string& base) {
  folder.write(name + "/adapter_config.json", "{\"base_model_name_or_path\": " + base + "}");
  folder.write(name + "/adapter_model.safetensors", "");
}

TEST_F(ModelFilesTest, AnAdapterGoesOnTheBaseThatItNames) {
  const std::string base = folder_.write("base/model.safetensors", "");
  write_adapter(folder_, "mine", fmt::format("\"{}\"", folder_ / "base"));
  for (const char* given : {"mine", "mine/adapter_model.safetensors"}) {
    const ModelFiles files = find(folder_ / given);
    EXPECT_EQ(files.name, "mine");
    EXPECT_THAT(files.weights, ElementsAre(base));
    EXPECT_EQ(files.folder, folder_ / "base");
    EXPECT_EQ(files.adapter, folder_ / "mine");
    EXPECT_EQ(files.text_folder(), folder_ / "base");
  }
  folder_.write("mine/tokenizer.json", "");
  EXPECT_EQ(find(folder_ / "mine").text_folder(), folder_ / "mine");
  EXPECT_EQ(find(folder_ / "base").adapter, "") << "the control";
}

TEST_F(ModelFilesTest, AnAdapterOfARunIsItsModel) {
  folder_.write("base/model.safetensors", "");
  write_adapter(folder_, "run/model", fmt::format("\"{}\"", folder_ / "base"));
  EXPECT_EQ(find(folder_ / "run").adapter, folder_ / "run/model");
  EXPECT_EQ(find(folder_ / "run").run, folder_ / "run");
}

TEST_F(ModelFilesTest, AnAdapterWithoutItsBaseSaysWhatHelps) {
  folder_.write("base/model.safetensors", "");
  write_adapter(folder_, "unnamed", "null");
  EXPECT_EQ(find(folder_ / "unnamed").name,
            folder_ / "unnamed/adapter_config.json: names no base model; give it by --base-model");
  write_adapter(folder_, "gone", "\"/no/such/base\"");
  EXPECT_EQ(find(folder_ / "gone").name,
            "the base model of gone is not here: /no/such/base: no such file, folder or run; give it by "
            "--base-model");
  const auto given = find_model_files({.path = folder_ / "gone"}, folder_ / "base");
  ASSERT_TRUE(given) << given.error().message;
  EXPECT_EQ(given->folder, folder_ / "base");
  EXPECT_THAT(find_model_files({.path = folder_ / "gone"}, folder_ / "unnamed").error().message,
              HasSubstr("an adapter itself"));
  folder_.write("pickled/adapter_config.json", "{}");
  EXPECT_THAT(find(folder_ / "pickled").name, HasSubstr("adapter_model.safetensors: no such file"));
}

TEST_F(ModelFilesTest, ATrainingsStepHoldsBaseAndAdapter) {
  const std::string weights = folder_.write("run/checkpoints/step-000000090/model.safetensors", "");
  folder_.write("run/checkpoints/step-000000090/adapter_config.json", "{}");
  const ModelFiles files = find(folder_ / "run");
  EXPECT_THAT(files.weights, ElementsAre(weights));
  EXPECT_EQ(files.adapter, files.folder);
}

}  // namespace
}  // namespace bitctl
