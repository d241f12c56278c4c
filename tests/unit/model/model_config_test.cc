#include "model/model_config.h"

#include <gmock/gmock.h>

namespace bitctl {
namespace {

using testing::HasSubstr;

struct Patch {
  const char* name;
  const char* json;  // merged over the tiny model's config; null removes a field
  const char* error;
};

// A Llama's, with this merged over it.
std::string patched(const char* json) {
  Json config = Json::parse(R"({
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 40, "hidden_size": 16,
    "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true})");
  config.merge_patch(Json::parse(json));
  return config.dump();
}

std::string error_of(const char* json) {
  const auto config = parse_model_config(patched(json));
  return config ? "" : config.error().message;
}

class BadConfig : public testing::TestWithParam<Patch> {};

TEST_P(BadConfig, IsRefusedByName) { EXPECT_THAT(error_of(GetParam().json), HasSubstr(GetParam().error)); }

INSTANTIATE_TEST_SUITE_P(
    Fields, BadConfig,
    testing::Values(
        Patch{"no_type", R"({"model_type": null})", "model_type is missing"},
        Patch{"type", R"({"model_type": "mamba"})",
              "model_type \"mamba\" is not implemented (known: bitnet, gemma2, "},
        Patch{"architecture", R"({"architectures": ["LlamaForSequenceClassification"]})",
              "is not implemented (known: Llama"},
        Patch{"no_size", R"({"hidden_size": null})", "hidden_size is missing"},
        Patch{"size_zero", R"({"vocab_size": 0})", "vocab_size is 0, it must be an integer from 1 to"},
        Patch{"size_negative", R"({"vocab_size": -3})", "vocab_size is -3"},
        Patch{"size_huge", R"({"intermediate_size": 99999999999})", "intermediate_size is 99999999999"},
        Patch{"size_fraction", R"({"hidden_size": 16.5})", "hidden_size is 16.5"},
        Patch{"size_text", R"({"hidden_size": "16"})", "hidden_size is \"16\""},
        Patch{"layers", R"({"num_hidden_layers": 5000})",
              "num_hidden_layers is 5000, it must be an integer from 1 to 4096"},
        Patch{"heads", R"({"num_key_value_heads": 3})", "4 attention heads cannot share 3"},
        Patch{"head_dim", R"({"head_dim": 5})", "head_dim 5 is odd"},
        Patch{"hidden", R"({"hidden_size": 18})", "hidden_size 18 is no multiple of num_attention_heads 4"},
        Patch{"eps", R"({"rms_norm_eps": 0})", "rms_norm_eps is 0"},
        Patch{"bias", R"({"attention_bias": 1})", "attention_bias is 1, no true or false"},
        Patch{"activation", R"({"hidden_act": "gelu"})", "hidden_act \"gelu\" is not implemented"},
        Patch{"quantized", R"({"quantization_config": {"bits": 4}})",
              "quantization_config {\"bits\":4} is not implemented"},
        Patch{"sliding_window", R"({"sliding_window": 4096})", "sliding_window 4096 is not implemented"},
        Patch{"interleaved", R"({"rope_interleaved": true})", "rope_interleaved true is not implemented"},
        Patch{"layer_types", R"({"layer_types": ["full_attention", "sliding_attention"]})",
              "layer type \"sliding_attention\" is not implemented"},
        Patch{"softcap", R"({"final_logit_softcapping": 30.0})",
              "final_logit_softcapping 30.0 is not implemented"}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Rope, BadConfig,
    testing::Values(
        Patch{"yarn", R"({"rope_scaling": {"rope_type": "yarn"}})", "RoPE needs factor"},
        Patch{"dynamic", R"({"rope_scaling": {"type": "dynamic"}})", "RoPE needs factor"},
        Patch{"longrope", R"({"rope_parameters": {"rope_type": "longrope", "short_factor": [1, 2]}})",
              "RoPE needs long_factor, a list of numbers"},
        Patch{"longrope_short", R"({"rope_parameters": {"rope_type": "longrope", "short_factor": [1],
              "long_factor": [1, 2]}})",
              "longrope has 1 factors for 2 frequencies"},
        Patch{"longrope_zero", R"({"rope_parameters": {"rope_type": "longrope", "short_factor": [1, 0],
              "long_factor": [1, 2]}})",
              "short_factor holds 0"},
        Patch{"proportional", R"({"rope_parameters": {"rope_type": "proportional"}})",
              "rope_type \"proportional\""},
        Patch{"type_number", R"({"rope_parameters": {"rope_type": 3}})", "rope_type 3 is not implemented"},
        Patch{"no_object", R"({"rope_scaling": "linear"})", "rope_scaling is no object"},
        Patch{"nested", R"({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}})",
              "rope_parameters of its own for \"full_attention\" is not implemented"},
        Patch{"linear_without_factor", R"({"rope_scaling": {"rope_type": "linear"}})", "RoPE needs factor"},
        Patch{"factor_zero", R"({"rope_scaling": {"rope_type": "linear", "factor": 0}})", "factor is 0"},
        Patch{"llama3_incomplete", R"({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}})",
              "RoPE needs low_freq"},
        Patch{
            "llama3_upside_down",
            R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1}})",
            "high_freq_factor must be above low_freq_factor"},
        Patch{"partial_of_a_llama", R"({"partial_rotary_factor": 0.5})",
              "partial_rotary_factor 0.5 is not implemented"},
        Patch{"partial", R"({"model_type": "phi3", "architectures": null, "partial_rotary_factor": 0.3})",
              "partial_rotary_factor 0.3 turns 1 of 4 dimensions"},
        Patch{"partial_above_one", R"({"partial_rotary_factor": 1.5})", "partial_rotary_factor is above 1"},
        Patch{"unknown_field", R"({"rope_parameters": {"rope_type": "default", "beta_fast": 32}})",
              "beta_fast is not implemented for rope_type \"default\""},
        Patch{"theta_twice",
              R"({"rope_theta": 10000, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}})",
              "contradicts itself: rope_theta is 500000.0 in rope_parameters and 10000 in config.json"},
        Patch{
            "type_twice",
            R"({"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {"rope_type": "default"}})",
            "contradicts itself: rope_type is \"default\" in rope_parameters and \"linear\" in "
            "rope_scaling"}),
    [](const auto& info) { return info.param.name; });

class GoodConfig : public testing::TestWithParam<Patch> {};

TEST_P(GoodConfig, IsOpened) { EXPECT_EQ(error_of(GetParam().json), ""); }

INSTANTIATE_TEST_SUITE_P(
    Each, GoodConfig,
    testing::Values(
        Patch{"plain", "{}", ""}, Patch{"no_architectures", R"({"architectures": null})", ""},
        Patch{"theta", R"({"rope_theta": 100000})", ""},
        Patch{"linear", R"({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 10000.0})", ""},
        Patch{"both_spellings", R"({"rope_theta": 10000, "rope_scaling": {"rope_type": "default"},
                                    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}})",
              ""},
        Patch{"whole_rotary", R"({"partial_rotary_factor": 1.0})", ""},
        // What SmolLM2's config and others carry beside a Llama's own fields.
        Patch{"foreign_fields", R"({"is_llama_config": true, "rope_interleaved": false, "pretraining_tp": 1,
                                    "transformers.js_config": {"dtype": "q4"}, "eos_token_id": [2, 3],
                                    "layer_types": ["full_attention", "full_attention"], "hidden_act": "silu"})",
              ""}),
    [](const auto& info) { return info.param.name; });

TEST(ModelConfig, MustBeJson) {
  EXPECT_THAT(parse_model_config("{\"model_type\": }").error().message, HasSubstr("config.json, byte 15: "));
  EXPECT_EQ(parse_model_config("[]").error().message, "config.json is no JSON object");
}

TEST(ModelConfig, OnlyTheTypeThatTheCallerKnows) {
  EXPECT_TRUE(parse_model_config(patched("{}"), "llama"));
  EXPECT_THAT(parse_model_config(patched(R"({"model_type": "qwen2"})"), "llama").error().message,
              HasSubstr("model_type \"qwen2\" is not implemented (known: llama)"));
}

INSTANTIATE_TEST_SUITE_P(
    Families, BadConfig,
    testing::Values(
        Patch{"gpt2_names", R"({"model_type": "gpt2", "architectures": null})", "n_embd is missing"},
        Patch{"layer_types",
              R"({"model_type": "qwen2", "architectures": null, "layer_types": ["full_attention"]})",
              "layer_types does not name 2 layers"},
        Patch{"layer_type", R"({"model_type": "qwen2", "architectures": null,
              "layer_types": ["full_attention", "linear_attention"]})",
              "layer type \"linear_attention\" is not implemented"},
        Patch{"no_rope", R"({"model_type": "smollm3", "architectures": null, "no_rope_layers": [1]})",
              "no_rope_layers does not name 2 layers"},
        Patch{"bias", R"({"model_type": "mistral", "architectures": null, "attention_bias": true})",
              "attention_bias true is not implemented"},
        Patch{"gemma3_cap", R"({"model_type": "gemma3_text", "architectures": null, "head_dim": 4,
              "attn_logit_softcapping": 50.0})",
              "attn_logit_softcapping 50.0 is not implemented"},
        Patch{"gemma3_truncate", R"({"model_type": "gemma3_text", "architectures": null, "head_dim": 4,
              "rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 2.0, "truncate": false,
              "original_max_position_embeddings": 32}}})",
              "truncate false for full_attention is not implemented"},
        Patch{"both_ways", R"({"model_type": "gemma3_text", "architectures": null, "head_dim": 4,
              "use_bidirectional_attention": true})",
              "use_bidirectional_attention true is not implemented"},
        Patch{"bitnet_online", R"({"quantization_config": {"quant_method": "bitnet",
              "linear_class": "bitlinear", "quantization_mode": "online"}})",
              "linear_class \"bitlinear\" with quantization_mode \"online\" is not implemented"},
        Patch{"bitnet_left_alone", R"({"quantization_config": {"quant_method": "bitnet",
              "modules_to_not_convert": ["model.layers.0.mlp.up_proj"]}})",
              "modules_to_not_convert [\"model.layers.0.mlp.up_proj\"] is not implemented"},
        Patch{"kv_heads_of_the_class",
              R"({"model_type": "mistral", "architectures": null, "num_key_value_heads": null})",
              "4 attention heads cannot share 8"},
        Patch{"gemma3_without_text", R"({"model_type": "gemma3"})", "gemma3 needs text_config, an object"},
        Patch{"gemma3_of_another",
              R"({"model_type": "gemma3", "architectures": null, "text_config": {"model_type": "llama"}})",
              "text_config of model_type \"llama\" is not implemented"},
        Patch{"gemma3_class", R"({"model_type": "gemma3", "text_config": {}})",
              "(known: Gemma3ForConditionalGeneration)"},
        Patch{"gemma3_ties", R"({"model_type": "gemma3", "architectures": null,
              "text_config": {"tie_word_embeddings": false}})",
              "tie_word_embeddings is true and in text_config false"},
        Patch{"bit_llama_of_tests", R"({"model_type": "bit_llama"})",
              "arch \"ttt\" of Bit-Llama is not implemented (known: llama)"},
        Patch{"bitnet_norm", R"({"quantization_config": {"quant_method": "bitnet", "use_rms_norm": true}})",
              "use_rms_norm is not implemented"},
        Patch{"int8_of_activations", R"({"quantization_config": {"quant_method": "compressed-tensors",
              "format": "int-quantized", "config_groups": {"group_0": {"input_activations": {"num_bits": 8},
              "weights": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel"}}}}})",
              "quantization_config"}),
    [](const auto& info) { return info.param.name; });

ModelConfig parsed(const char* json) {
  auto config = parse_model_config(patched(json));
  EXPECT_TRUE(config) << (config ? "" : config.error().message);
  return config ? *config : ModelConfig{};
}

std::vector<int64_t> windows(const ModelConfig& config) {
  std::vector<int64_t> windows;
  for (const LayerConfig& layer : config.layers) windows.push_back(layer.window);
  return windows;
}

TEST(ModelConfig, WhatIsSilentIsWhatTransformersTakes) {
  const auto mistral = R"({"model_type": "mistral", "architectures": null})";
  EXPECT_EQ(windows(parsed(mistral)), (std::vector<int64_t>{4096, 4096}));
  Json null = Json::parse(patched(mistral));
  null["sliding_window"] = nullptr;  // no window, which absence is not
  EXPECT_EQ(windows(*parse_model_config(null.dump())), (std::vector<int64_t>{0, 0}));

  const ModelConfig gemma = parsed(R"({"model_type": "gemma2", "architectures": null, "head_dim": null})");
  EXPECT_EQ(gemma.head_dim, 256);
  EXPECT_EQ(gemma.attention_softcap, 50);
  EXPECT_EQ(gemma.logit_softcap, 30);
  EXPECT_EQ(windows(gemma), (std::vector<int64_t>{4096, 0}));

  const ModelConfig qwen = parsed(R"({"model_type": "qwen2", "architectures": null, "sliding_window": 8})");
  EXPECT_EQ(windows(qwen), (std::vector<int64_t>{0, 0}));
  EXPECT_TRUE(qwen.qkv_bias && !qwen.output_bias);
  EXPECT_EQ(windows(parsed(R"({"model_type": "qwen2", "architectures": null, "use_sliding_window": true,
                               "sliding_window": 8, "max_window_layers": 0})")),
            (std::vector<int64_t>{8, 8}));
}

TEST(ModelConfig, OfGemma3sTextPartOnlyDifferencesAreWritten) {
  const auto config = parse_model_config(R"({"model_type": "gemma3", "vision_config": {},
      "architectures": ["Gemma3ForConditionalGeneration"],
      "text_config": {"hidden_size": 2560, "sliding_window": 1024, "num_hidden_layers": 34,
                      "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}})");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->names, TensorNames::multimodal);
  EXPECT_EQ(config->model_type, "gemma3_text");
  EXPECT_EQ(config->vocab_size, 262'208);
  EXPECT_EQ(config->kv_heads, 4);
  EXPECT_EQ(config->layers.size(), 34U);
  EXPECT_EQ(config->rope.factor, 8);
  EXPECT_EQ(config->local_rope.factor, 1);
  EXPECT_TRUE(config->tie_word_embeddings);
}

TEST(ModelConfig, BitLlamasOwnSpelling) {
  const auto of = [](const char* json) { return parse_model_config(json); };
  const auto config = of(R"({"arch": "llama", "vocab_size": 40, "hidden_dim": 16, "n_layers": 2, "n_heads": 4,
      "n_kv_heads": 2, "intermediate_dim": null, "inner_lr": 0.0, "n_gpu_layers": null, "rope_theta": 500000.0})");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->names, TensorNames::bit_llama);
  EXPECT_EQ(config->quantization, Quantization::signs_at_load);
  EXPECT_EQ(config->intermediate_size, 64);
  EXPECT_EQ(config->kv_heads, 2);
  EXPECT_EQ(config->layers.size(), 2U);
  EXPECT_EQ(config->norm_eps, 1e-5);
  EXPECT_EQ(config->rope.theta, 500'000);
  EXPECT_FALSE(config->tie_word_embeddings);
  // The one that Bit-Llama ships, four keys.
  EXPECT_THAT(
      of(R"({"vocab_size": 16384, "hidden_dim": 256, "num_layers": 4, "inner_lr": 0.01})").error().message,
      HasSubstr("arch \"ttt\" of Bit-Llama is not implemented"));
  // The torch engine knows nothing of it.
  EXPECT_FALSE(of(R"({"vocab_size": 40, "hidden_size": 16})"));
}

TEST(ModelConfig, SmolLM3TurnsAllButEveryFourthLayer) {
  const ModelConfig config =
      parsed(R"({"model_type": "smollm3", "architectures": null, "num_hidden_layers": 8})");
  std::vector<bool> rotates;
  for (const LayerConfig& layer : config.layers) rotates.push_back(layer.rotates);
  EXPECT_EQ(rotates, (std::vector<bool>{true, true, true, false, true, true, true, false}));
  EXPECT_EQ(config.rope.theta, 2e6);
}

TEST(ModelConfig, TernaryWeightsAreDividedOrMultiplied) {
  const auto of = [](const char* linear, const char* mode) {
    const Json quantization{
        {"quant_method", "bitnet"}, {"linear_class", linear}, {"quantization_mode", mode}};
    return parsed(Json{{"quantization_config", quantization}}.dump().c_str()).quantization;
  };
  EXPECT_EQ(of("autobitlinear", "offline"), Quantization::ternary_multiply);
  EXPECT_EQ(of("bitlinear", "offline"), Quantization::ternary_divide);
  EXPECT_EQ(of("autobitlinear", "online"), Quantization::ternary_at_load);
}

// Whatever stands in a field, the answer is a model or a reason.
TEST(ModelConfig, AnyValueInAnyFieldOfAnyFamily) {
  const Json base = Json::parse(R"({"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "n_embd": 16, "n_layer": 2, "n_head": 4})");
  const char* keys[] = {"vocab_size",
                        "hidden_size",
                        "intermediate_size",
                        "num_hidden_layers",
                        "num_attention_heads",
                        "num_key_value_heads",
                        "head_dim",
                        "n_embd",
                        "n_layer",
                        "n_head",
                        "n_inner",
                        "n_positions",
                        "max_position_embeddings",
                        "rms_norm_eps",
                        "layer_norm_epsilon",
                        "tie_word_embeddings",
                        "hidden_act",
                        "hidden_activation",
                        "activation_function",
                        "attention_bias",
                        "mlp_bias",
                        "layer_types",
                        "sliding_window",
                        "use_sliding_window",
                        "max_window_layers",
                        "no_rope_layers",
                        "no_rope_layer_interval",
                        "sliding_window_pattern",
                        "rope_theta",
                        "rope_scaling",
                        "rope_parameters",
                        "rope_local_base_freq",
                        "partial_rotary_factor",
                        "original_max_position_embeddings",
                        "query_pre_attn_scalar",
                        "final_logit_softcapping",
                        "attn_logit_softcapping",
                        "quantization_config",
                        "architectures",
                        "model_type",
                        "text_config",
                        "arch",
                        "hidden_dim"};
  std::vector<Json> values{nullptr,
                           true,
                           0,
                           1,
                           -1,
                           1.5,
                           1e300,
                           UINT64_MAX,
                           "",
                           "\x1b[2J",
                           Json::array(),
                           Json::array({nullptr}),
                           Json::array({1, 2}),
                           Json::object()};
  for (const char* nested : {R"({"rope_type": {}})", R"({"type": "longrope", "short_factor": [true]})",
                             R"({"full_attention": []})", R"({"quant_method": "compressed-tensors",
                                 "format": "int-quantized", "config_groups": [1]})"})
    values.push_back(Json::parse(nested));
  int good = 0, bad = 0;
  for (const char* family : {"bit_llama", "bitnet", "gemma2", "gemma3", "gemma3_text", "gpt2", "llama",
                             "mistral", "phi3", "qwen2", "qwen3", "smollm3"}) {
    for (const char* key : keys) {
      for (const Json& other : values) {
        Json config = base;
        config["model_type"] = family;
        config[key] = other;
        const auto parsed = parse_model_config(config.dump());
        ++(parsed ? good : bad);
        if (!parsed) {
          EXPECT_THAT(parsed.error().message, testing::StartsWith("config.json"));
          EXPECT_THAT(parsed.error().message, testing::Not(HasSubstr("\x1b")));
        }
      }
    }
  }
  EXPECT_GT(good, 500);
  EXPECT_GT(bad, 500);
}

}  // namespace
}  // namespace bitctl
