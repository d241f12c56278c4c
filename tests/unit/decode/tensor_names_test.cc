#include "decode/tensor_names.h"

#include <gtest/gtest.h>

namespace bitctl {
namespace {

TEST(TensorNames, AMultimodalModelIsItsTextPart) {
  const auto of = [](const char* name) { return text_model_name(TensorNames::multimodal, name); };
  EXPECT_EQ(of("language_model.model.layers.0.mlp.up_proj.weight"), "model.layers.0.mlp.up_proj.weight");
  EXPECT_EQ(of("model.language_model.norm.weight"), "model.norm.weight");
  EXPECT_EQ(of("language_model.lm_head.weight"), "lm_head.weight");
  EXPECT_EQ(of("lm_head.weight"), "lm_head.weight");
  EXPECT_EQ(of("vision_tower.vision_model.post_layernorm.bias"), std::nullopt);
  EXPECT_EQ(of("model.multi_modal_projector.mm_soft_emb_norm.weight"), std::nullopt);
}

TEST(TensorNames, BitLlamasOwnAndTransformersMixed) {
  const auto of = [](const char* name) { return text_model_name(TensorNames::bit_llama, name); };
  EXPECT_EQ(of("embed.weight"), "model.embed_tokens.weight");
  EXPECT_EQ(of("norm_f.weight"), "model.norm.weight");
  EXPECT_EQ(of("layers.11.norm1.weight"), "model.layers.11.input_layernorm.weight");
  EXPECT_EQ(of("layers.0.norm2.model.norm.weight"), "model.layers.0.post_attention_layernorm.weight");
  EXPECT_EQ(of("layers.0.self_attn.q_proj.weight"), "model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(of("model.layers.0.input_layernorm.weight"), "model.layers.0.input_layernorm.weight");
}

TEST(TensorNames, ATextModelKeepsItsOwn) {
  EXPECT_EQ(text_model_name(TensorNames::text_model, "norm_f.weight"), "norm_f.weight");
}

}  // namespace
}  // namespace bitctl
