#include "checkpoint/export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "failing_file_ops.h"
#include "safetensors/quantize.h"
#include "safetensors/tensor_file.h"
#include "temporary_folder.h"
#include "tensor_step.h"

namespace bitctl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

TEST(Quantize, ARowKeepsItsLargestExactly) {
  const float row[] = {0.5F, -1.27F, 0.004F, 0.006F, NAN, INFINITY};
  int8_t to[6];
  EXPECT_FLOAT_EQ(quantize_row(row, 6, to), 0.01F);
  EXPECT_THAT(to, ElementsAre(50, -127, 0, 1, 0, 127));
  const float zeros[] = {0, -0.0F};
  EXPECT_EQ(quantize_row(zeros, 2, to), 1);
}

TEST(Quantize, TernaryRoundsATieToEvenAsTorchDoes) {
  EXPECT_EQ(ternary_of(0.5F, 1), 0);
  EXPECT_EQ(ternary_of(0.51F, 1), 1);
  EXPECT_EQ(ternary_of(-7, 1), -1);
  EXPECT_EQ(ternary_of(NAN, 1), 0);
  const float a = 1, b = 0, c = -1, d = 1;
  const float* const rows[4] = {&a, &b, &c, &d};
  uint8_t packed = 0;
  pack_ternary(rows, 1, 1, &packed);
  EXPECT_EQ(packed, 0b10'00'01'10);
}

class ExportStep : public testing::Test {
 protected:
  void SetUp() override {
    folder_.write("side/config.json", R"({"model_type": "llama", "dtype": "float32"})");
    folder_.write("side/tokenizer.json", "{}");
    folder_.write("out/.keep", "");
    std::filesystem::create_directory(checkpoints_);
    std::vector<float> w(8 * 3);
    std::iota(w.begin(), w.end(), -7.3F);
    save(1, {floats("model.layers.0.mlp.weight", {8, 3}, w),
             floats("model.embed_tokens.weight", {2, 2}, {1, 2, 3, 1e6F}),
             floats("model.norm.weight", {2}, {1, 1.0F + 1.0F / 512}),
             {"position", "I64", {1}, std::string(8, 1)}});
  }
  void save(uint64_t step, const std::vector<TestTensor>& tensors) {
    const auto saved = save_tensors(checkpoints_, step, tensors, folder_ / "side");
    ASSERT_TRUE(saved) << saved.error().message;
  }
  StepFolder step() { return {1, checkpoints_ + "/" + step_folder_name(1)}; }
  Result<Exported> run(ExportOptions options) { return export_step(step(), target_, options); }
  std::shared_ptr<const TensorFile> model() {
    auto file = TensorFile::open(target_ + "/model.safetensors", {.strictness = Strictness::strict});
    EXPECT_TRUE(file) << file.error().message;
    return file ? *file : nullptr;
  }
  std::vector<std::string> beside() {  // what lies in the target's parent
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / "out"))
      names.push_back(entry.path().filename());
    return names;
  }

  TemporaryFolder folder_;
  std::string checkpoints_ = folder_ / "checkpoints";
  std::string target_ = folder_ / "out/model";
};

TEST_F(ExportStep, AModelInPartsBecomesOneFileOfItsOwn) {
  const TestTensor w = floats("model.layers.0.mlp.weight", {2, 2}, {1, 2, 3, 4});
  const TestTensor lora = floats("lora", {2}, {5, 6});
  const auto saved =
      save_files(checkpoints_, 1,
                 {{"model-00001-of-00002.safetensors", {w}}, {"model-00002-of-00002.safetensors", {lora}}},
                 folder_ / "side");
  ASSERT_TRUE(saved) << saved.error().message;
  const auto done = run({});
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(done->tensors, 2u);
  for (const TestTensor& tensor : {w, lora})
    EXPECT_EQ(model()->bytes(*model()->header().find(tensor.name)), tensor.bytes) << tensor.name;
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(target_)) {
    names.push_back(entry.path().filename());
    EXPECT_EQ(entry.hard_link_count(), 1u) << names.back();
  }
  EXPECT_THAT(names, UnorderedElementsAre("model.safetensors", "config.json", "tokenizer.json"));
  std::fstream(step().path + "/model-00002-of-00002.safetensors",
               std::ios::in | std::ios::out | std::ios::binary)
      .seekp(4096)
      .put('!');
  const auto damaged = run({.replace = true});
  ASSERT_FALSE(damaged);
  EXPECT_THAT(damaged.error().message, HasSubstr("model-00002-of-00002.safetensors: tensor lora"));
}

TEST_F(ExportStep, AsSavedEveryByteIsTheSame) {
  const auto done = run({});
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(done->tensors, 4u);
  EXPECT_EQ(done->cast, 0u);
  const auto original = TensorFile::open(step().path + "/model.safetensors");
  for (const TensorInfo& tensor : (*original)->header().tensors)
    EXPECT_EQ(model()->bytes(*model()->header().find(tensor.name)), (*original)->bytes(tensor));
  EXPECT_EQ(model()->header().metadata_value("format"), "pt");
  EXPECT_EQ(read_text(target_ + "/config.json"), read_text(folder_ / "side/config.json"));
  EXPECT_EQ(read_text(target_ + "/tokenizer.json"), "{}");
  EXPECT_THAT(beside(), UnorderedElementsAre(".keep", "model"));
}

TEST_F(ExportStep, CastsWhatIsAFloatAndSaysSoInTheConfig) {
  const auto done = run({.dtype = ExportDtype::f16});
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(done->cast, 3u);
  EXPECT_EQ(done->overflowed, 1u) << "1e6 is more than F16 holds";
  const TensorInfo* norm = model()->header().find("model.norm.weight");
  ASSERT_NE(norm, nullptr);
  EXPECT_EQ(norm->dtype, "F16");
  EXPECT_EQ(model()->header().find("position")->dtype, "I64");
  EXPECT_THAT(read_text(target_ + "/config.json"), HasSubstr("\"dtype\": \"float16\""));
}

TEST_F(ExportStep, Int8HasAScaleForEachRow) {
  const auto done = run({.dtype = ExportDtype::int8});
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(done->quantized, 1u);
  const auto file = model();
  const TensorInfo* weight = file->header().find("model.layers.0.mlp.weight");
  const TensorInfo* scale = file->header().find("model.layers.0.mlp.weight_scale");
  ASSERT_TRUE(weight != nullptr && scale != nullptr);
  EXPECT_EQ(weight->dtype, "I8");
  EXPECT_THAT(scale->shape, ElementsAre(8, 1));
  const auto* const q = reinterpret_cast<const int8_t*>(file->bytes(*weight).data());
  for (int row = 0; row < 8; ++row) {
    float s = 0;
    std::memcpy(&s, file->bytes(*scale).data() + row * 4, 4);
    for (int i = 0; i < 3; ++i)
      EXPECT_NEAR(static_cast<float>(q[row * 3 + i]) * s, -7.3F + static_cast<float>(row * 3 + i),
                  s / 2 + 1e-6);
  }
  EXPECT_EQ(file->header().find("model.embed_tokens.weight")->dtype, "BF16");
}

TEST_F(ExportStep, TernaryIsRefusedToOtherFamiliesAndPackedForBitNet) {
  const auto refused = run({.dtype = ExportDtype::ternary});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("model_type \"llama\" is not BitNet's"));
  EXPECT_THAT(beside(), ElementsAre(".keep"));

  folder_.write("side/config.json", R"({"model_type": "bitnet"})");
  std::filesystem::remove_all(step().path);
  std::vector<float> w;
  for (int i = 0; i < 8; ++i) w.push_back(static_cast<float>(i % 3 - 1));
  save(1, {floats("model.layers.0.mlp.weight", {8, 1}, w)});
  const auto done = run({.dtype = ExportDtype::ternary});
  ASSERT_TRUE(done) << done.error().message;
  const auto file = model();
  const TensorInfo* weight = file->header().find("model.layers.0.mlp.weight");
  EXPECT_THAT(weight->shape, ElementsAre(2, 1));
  // Rows 0, 2, 4, 6 are -1, 1, 0, -1 and rows 1, 3, 5, 7 are 0, -1, 1, 0; the first lies lowest.
  EXPECT_EQ(file->bytes(*weight), std::string({char(0b00'01'10'00), char(0b01'10'00'01)}));
  EXPECT_EQ(file->header().find("model.layers.0.mlp.weight_scale")->dtype, "BF16");
}

TEST_F(ExportStep, ADamagedTensorIsNamedAndNothingStays) {
  std::fstream(step().path + "/model.safetensors", std::ios::in | std::ios::out | std::ios::binary)
          .seekp(4100)
      << '!';
  const auto done = run({.dtype = ExportDtype::bf16});
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().kind, ErrorKind::damaged);
  EXPECT_THAT(done.error().message, HasSubstr("tensor position"));
  EXPECT_THAT(beside(), ElementsAre(".keep"));
}

TEST_F(ExportStep, WhatStandsThereIsReplacedOnlyWhereItIsAnExportAndThatIsAskedFor) {
  ASSERT_TRUE(run({}));
  EXPECT_THAT(run({}).error().message, HasSubstr("exists; --force"));
  ASSERT_TRUE(run({.dtype = ExportDtype::bf16, .replace = true}));
  EXPECT_EQ(model()->header().find("model.norm.weight")->dtype, "BF16");
  EXPECT_THAT(beside(), UnorderedElementsAre(".keep", "model"));

  folder_.write("out/model/sub/mine.txt", "x");
  EXPECT_THAT(run({.replace = true}).error().message, HasSubstr("sub: not a file of an export"));
  target_ = folder_ / "side";
  EXPECT_THAT(run({.replace = true}).error().message, HasSubstr("holds no model.safetensors"));
}

TEST_F(ExportStep, TheDataIsOnTheDiskBeforeTheName) {
  FailingFileOps ops;
  ASSERT_TRUE(run({.ops = &ops}));
  const auto& log = ops.log();
  const auto at = [&](const std::string& call) {
    return std::find(log.begin(), log.end(), call) - log.begin();
  };
  const auto named = at("rename2 model");
  EXPECT_LT(at("fsync model.safetensors"), named);
  EXPECT_LT(at("fsync config.json"), named);
  EXPECT_EQ(log[static_cast<size_t>(named) + 2], "fsync out");
}

TEST_F(ExportStep, AnyCallThatFailsLeavesNothingBehind) {
  FailingFileOps counting;
  ASSERT_TRUE(run({.dtype = ExportDtype::int8, .ops = &counting}));
  std::filesystem::remove_all(target_);
  int failed = 0;
  for (int nth = 1; nth <= static_cast<int>(counting.calls().size()); ++nth) {
    FailingFileOps ops(nth, ENOSPC);
    if (run({.dtype = ExportDtype::int8, .ops = &ops})) {
      std::filesystem::remove_all(target_);  // the failure was in clearing up, after the end
      for (const std::string& name : beside())
        if (name.starts_with(".tmp-")) std::filesystem::remove_all(folder_ / "out/" + name);
      continue;
    }
    ++failed;
    EXPECT_THAT(beside(), ElementsAre(".keep")) << "call " << nth << ", " << ops.first_failed();
  }
  EXPECT_GT(failed, 15);
}

TEST_F(ExportStep, WhatAKilledExportLeftIsSweptByTheNext) {
  folder_.write("out/.tmp-export-model-999999999-00000000/model.safetensors", "half");
  folder_.write("out/.tmp-export-model-1-00000000/model.safetensors", "of a process that lives");
  ASSERT_TRUE(run({}));
  EXPECT_THAT(beside(), UnorderedElementsAre(".keep", "model", ".tmp-export-model-1-00000000"));
}

}  // namespace
}  // namespace bitctl
