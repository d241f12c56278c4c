#include <gmock/gmock.h>

#include "unit/engine/tiny_llama.h"

namespace bitctl {
namespace {

using testing::HasSubstr;

struct Patch {
  const char* name;
  const char* json;  // merged over the tiny model's config; null removes a field
  const char* error;
};

TinyLlama patched(const char* json) {
  TinyLlama llama;
  llama.config.merge_patch(Json::parse(json));
  return llama;
}

class BadConfig : public testing::TestWithParam<Patch> {};

TEST_P(BadConfig, IsRefusedByName) {
  EXPECT_THAT(OpenedLlama(patched(GetParam().json)).error(), HasSubstr(GetParam().error));
}

INSTANTIATE_TEST_SUITE_P(
    Fields, BadConfig,
    testing::Values(
        Patch{"no_type", R"({"model_type": null})", "model_type is missing"},
        Patch{"type", R"({"model_type": "qwen2"})", "model_type \"qwen2\" is not implemented"},
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
        Patch{"yarn", R"({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}})",
              "rope_type is not implemented by this engine"},
        Patch{"dynamic", R"({"rope_scaling": {"type": "dynamic", "factor": 2.0}})",
              "rope_type is not implemented by this engine"},
        Patch{"longrope", R"({"rope_parameters": {"rope_type": "longrope", "factor": 2.0}})",
              "RoPE needs short_factor"},
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
        Patch{"partial", R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor is not implemented"},
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

TEST_P(GoodConfig, IsOpened) { EXPECT_EQ(OpenedLlama(patched(GetParam().json)).error(), ""); }

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

TEST(Config, MustBeJson) {
  bitctl_model* model = nullptr;
  bitctl_model_info info;
  bitctl_engine_error error;
  const bitctl_model_options options{};
  EXPECT_EQ(the_engine().model_open("{\"model_type\": }", nullptr, 0, &options, &model, &info, &error), 1);
  EXPECT_THAT(error.text, HasSubstr("config.json, byte 15: "));
  EXPECT_EQ(the_engine().model_open("[]", nullptr, 0, &options, &model, &info, &error), 1);
  EXPECT_STREQ(error.text, "config.json is no JSON object");
}

}  // namespace
}  // namespace bitctl
