#include <gmock/gmock.h>

#include "unit/engine/tiny_llama.h"

namespace bitctl {
namespace {

using testing::HasSubstr;

struct Patch {
  const char* name;
  const char* json;  // merged over the tiny model's config
  const char* error;
};

class BeyondThisEngine : public testing::TestWithParam<Patch> {};

TEST_P(BeyondThisEngine, IsRefusedByName) {
  TinyLlama llama;
  llama.config.merge_patch(Json::parse(GetParam().json));
  EXPECT_THAT(OpenedLlama(llama).error(), HasSubstr(GetParam().error));
}

INSTANTIATE_TEST_SUITE_P(
    Fields, BeyondThisEngine,
    testing::Values(
        Patch{"type", R"({"model_type": "qwen2"})", "model_type \"qwen2\" is not implemented (known: llama)"},
        Patch{"rope", R"({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}})",
              "rope_type is not implemented by this engine"},
        Patch{"partial", R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor 0.5 is not implemented"},
        Patch{"activation", R"({"hidden_act": "relu2"})", "hidden_act is not implemented by this engine"},
        Patch{"ternary", R"({"quantization_config": {"quant_method": "bitnet"}})",
              "quantization_config is not implemented by this engine"},
        Patch{"a_field_of_the_parser", R"({"rms_norm_eps": 0})", "rms_norm_eps is 0"}),
    [](const auto& info) { return info.param.name; });

TEST(Config, MustBeJson) {
  bitctl_model* model = nullptr;
  bitctl_model_info info;
  bitctl_engine_error error;
  const bitctl_model_options options{};
  EXPECT_EQ(the_engine().model_open("{\"model_type\": }", nullptr, 0, &options, &model, &info, &error), 1);
  EXPECT_THAT(error.text, HasSubstr("config.json, byte 15: "));
}

}  // namespace
}  // namespace bitctl
