#include "decode/native_weights.h"

#include <gmock/gmock.h>

#include "safetensors/element.h"
#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

using testing::HasSubstr;

struct TinyTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::vector<float> values = {};  // empty: 0.5 everywhere; I8 and U8: whole numbers
};

class NativeWeightsTest : public testing::Test {
 protected:
  NativeWeightsTest() {
    config_.model_type = "llama";
    config_.vocab_size = 8, config_.hidden_size = 4, config_.intermediate_size = 8;
    config_.heads = 2, config_.kv_heads = 2, config_.head_dim = 2;
    config_.max_position_embeddings = 16;
    config_.layers.resize(1);
    add("model.embed_tokens.weight", {8, 4});
    add("model.norm.weight", {4});
    add("lm_head.weight", {8, 4});
    const std::string layer = "model.layers.0.";
    for (const char* name : {"input_layernorm", "post_attention_layernorm"})
      add(layer + name + ".weight", {4});
    for (const char* name : {"q", "k", "v", "o"}) add(layer + "self_attn." + name + "_proj.weight", {4, 4});
    add(layer + "mlp.gate_proj.weight", {8, 4});
    add(layer + "mlp.up_proj.weight", {8, 4});
    add(layer + "mlp.down_proj.weight", {4, 8});
  }

  void add(const std::string& name, std::vector<int64_t> shape) { tensors_.push_back({name, "F32", shape}); }
  TinyTensor& tensor(const std::string& name) {
    for (TinyTensor& tensor : tensors_)
      if (tensor.name == name) return tensor;
    throw std::out_of_range(name);
  }
  void remove(const std::string& name) {
    std::erase_if(tensors_, [&](const TinyTensor& tensor) { return tensor.name == name; });
  }

  std::shared_ptr<const TensorFile> file(const std::string& name, const std::vector<TinyTensor>& tensors) {
    std::vector<TensorInfo> infos;
    for (const TinyTensor& tensor : tensors) infos.push_back({tensor.name, tensor.dtype, tensor.shape});
    EXPECT_TRUE(lay_out(infos));
    std::string content = *build_header(infos, {});
    for (const TensorInfo& info : infos)
      for (const TinyTensor& tensor : tensors)
        if (tensor.name == info.name) content += bytes_of(tensor);
    auto opened = TensorFile::open(folder_.write(name, content));
    EXPECT_TRUE(opened) << (opened ? "" : opened.error().message);
    return *opened;
  }
  static std::string bytes_of(const TinyTensor& tensor) {
    size_t count = 1;
    for (const int64_t size : tensor.shape) count *= static_cast<size_t>(size);
    std::vector<float> values = tensor.values;
    values.resize(count, 0.5F);
    std::string bytes(count * dtype_bits(tensor.dtype) / 8, '\0');
    if (is_castable(tensor.dtype))
      write_floats(tensor.dtype, values.data(), count, bytes.data());
    else
      for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<char>(static_cast<int>(values[i]));
    return bytes;
  }

  Result<NativeWeights> collect() {
    return collect_native_weights(config_, {file("model.safetensors", tensors_)});
  }
  std::string error() {
    const auto weights = collect();
    return weights ? "" : weights.error().message;
  }

  TemporaryFolder folder_;
  ModelConfig config_;
  std::vector<TinyTensor> tensors_;
};

constexpr const char* kGate = "model.layers.0.mlp.gate_proj.weight";

TEST_F(NativeWeightsTest, MatricesLieWhereTheirFilesHaveThem) {
  const TinyTensor gate = tensor(kGate);
  remove(kGate);
  const auto first = file("1.safetensors", tensors_), second = file("2.safetensors", {gate});
  const auto weights = collect_native_weights(config_, {first, second});
  ASSERT_TRUE(weights) << weights.error().message;
  const Matrix& matrix = weights->layers[0].gate.weight;
  EXPECT_EQ(matrix.data, second->bytes(*second->header().find(kGate)).data());
  EXPECT_EQ(matrix.type, Matrix::Type::f32);
  EXPECT_EQ(matrix.rows, 8U);
  EXPECT_EQ(matrix.columns, 4U);
  EXPECT_EQ(weights->embedding.data, first->bytes(*first->header().find("model.embed_tokens.weight")).data());
  EXPECT_TRUE(weights->made.empty());
  EXPECT_THAT(collect_native_weights(config_, {first, second, second}).error().message,
              HasSubstr("is in another part, too"));
}

TEST_F(NativeWeightsTest, WhatDiffersIsNamed) {
  tensor(kGate).shape = {4, 8};
  remove("model.norm.weight");
  add("model.norm.bias", {4});
  EXPECT_EQ(
      error(),
      "the tensors are not those of config.json: model.layers.0.mlp.gate_proj.weight is F32 [4, 8] where "
      "[8, 4] of F32, BF16, F16 or I8 is expected; model.norm.weight is missing; model.norm.bias is not "
      "expected");
}

TEST_F(NativeWeightsTest, OfManyDifferencesTheFirstFive) {
  config_.layers.resize(3);
  EXPECT_THAT(error(), HasSubstr("model.layers.1.input_layernorm.weight is missing; "));
  EXPECT_THAT(error(), testing::EndsWith("; and 13 more"));
}

TEST_F(NativeWeightsTest, ADtypeThatIsNoneOfOurs) {
  tensor("lm_head.weight").dtype = "F64";
  EXPECT_THAT(error(), HasSubstr("lm_head.weight is F64 [8, 4] instead of F32, BF16 or F16 [8, 4]"));
}

TEST_F(NativeWeightsTest, ATiedHeadIsTheEmbedding) {
  config_.tie_word_embeddings = true;
  const auto same = collect();
  ASSERT_TRUE(same) << same.error().message;
  EXPECT_EQ(same->head.data, same->embedding.data);
  tensor("lm_head.weight").values = {0.25F};
  EXPECT_THAT(error(), HasSubstr("lm_head.weight is not model.embed_tokens.weight, though"));
  remove("lm_head.weight");
  EXPECT_EQ(error(), "");
}

TEST_F(NativeWeightsTest, WhatFollowsFromTheConfigIsNotMissed) {
  add("model.layers.0.self_attn.rotary_emb.inv_freq", {1});
  EXPECT_EQ(error(), "");
}

TEST_F(NativeWeightsTest, GemmasNormsGetTheirOne) {
  config_.norms_add_one = true;
  EXPECT_THAT(collect()->norm.weight, testing::Each(1.5F));
}

TEST_F(NativeWeightsTest, IntegersOf8BitsHaveAScaleARow) {
  tensor(kGate) = {kGate, "I8", {8, 4}, {3, -7}};
  EXPECT_THAT(error(), HasSubstr("gate_proj.weight_scale is missing"));
  tensors_.push_back({std::string(kGate) + "_scale", "BF16", {8, 1}, {2, 4}});
  const auto weights = collect();
  ASSERT_TRUE(weights) << weights.error().message;
  const Matrix& matrix = weights->layers[0].gate.weight;
  EXPECT_EQ(matrix.type, Matrix::Type::int8);
  EXPECT_EQ(static_cast<const int8_t*>(matrix.data)[1], -7);
  EXPECT_EQ(matrix.scales[0], 2);
  EXPECT_EQ(matrix.scales[1], 4);
}

TEST_F(NativeWeightsTest, PackedTernaryWeightsAreThatOnlyWhereTheConfigSaysSo) {
  for (TinyTensor& one : tensors_)
    if (one.name.ends_with("_proj.weight")) one.dtype = "U8", one.shape[0] /= 4;
  for (const TinyTensor& one : std::vector(tensors_))
    if (one.dtype == "U8") tensors_.push_back({one.name + "_scale", "BF16", {1}, {4}});
  EXPECT_THAT(error(), HasSubstr("q_proj.weight is U8 [1, 4] where [4, 4] of F32"));
  config_.quantization = Quantization::ternary_multiply;
  EXPECT_EQ(collect()->layers[0].down.weight.scales[0], 4);
  config_.quantization = Quantization::ternary_divide;
  const auto weights = collect();
  ASSERT_TRUE(weights) << weights.error().message;
  EXPECT_EQ(weights->layers[0].down.weight.scales[0], 0.25F);
  EXPECT_EQ(weights->layers[0].down.weight.rows, 4U);
  EXPECT_EQ(weights->head.type, Matrix::Type::f32);
}

TEST_F(NativeWeightsTest, LatentsAreRoundedByTheMeanOfTheirMagnitudes) {
  config_.quantization = Quantization::ternary_at_load;
  // Mean 0.975: 0.4 is nothing, 1.4 and 2 are 1; a column of four rows is one byte, the first row lowest.
  tensor("model.layers.0.self_attn.q_proj.weight").values = {2,  0.4F, 1,    1, -2, 1.4F, -1, 1,
                                                             -1, 0.4F, 0.4F, 1, 1,  0,    -1, 1};
  const auto weights = collect();
  ASSERT_TRUE(weights) << weights.error().message;
  const Matrix& matrix = weights->layers[0].q.weight;
  ASSERT_EQ(matrix.type, Matrix::Type::ternary);
  EXPECT_NEAR(matrix.scales[0], 15.6F / 16, 1e-6);
  EXPECT_EQ(static_cast<const uint8_t*>(matrix.data)[0], 2 | 0 << 2 | 0 << 4 | 2 << 6);
  EXPECT_EQ(static_cast<const uint8_t*>(matrix.data)[1], 1 | 2 << 2 | 1 << 4 | 1 << 6);
}

TEST_F(NativeWeightsTest, BitLlamasLatentsAreSigns) {
  config_.names = TensorNames::bit_llama;
  config_.quantization = Quantization::signs_at_load;
  // Mean 0.8: a half of it is rounded away from zero.
  tensor("model.layers.0.self_attn.q_proj.weight").values = {2, 0.4F, -0.4F, 0.3F, -1, 0, -0.3F, 0.4F,
                                                             2, 1,    -1,    1,    1,  1, 1,     0};
  const auto weights = collect();
  ASSERT_TRUE(weights) << weights.error().message;
  const Matrix& matrix = weights->layers[0].q.weight;
  ASSERT_EQ(matrix.type, Matrix::Type::int8);
  const auto* signs = static_cast<const int8_t*>(matrix.data);
  EXPECT_THAT(std::vector<int>(signs, signs + 8), testing::ElementsAre(1, 1, -1, 0, -1, 0, 0, 1));
  EXPECT_EQ(matrix.scales[3], 1);
  EXPECT_EQ(weights->head.type, Matrix::Type::f32);
}

TEST_F(NativeWeightsTest, OneTensorUnderTwoNames) {
  config_.names = TensorNames::bit_llama;
  config_.quantization = Quantization::signs_at_load;
  add("embed.weight", {8, 4});
  EXPECT_THAT(error(), HasSubstr("model.embed_tokens.weight is there under two names"));
}

}  // namespace
}  // namespace bitctl
