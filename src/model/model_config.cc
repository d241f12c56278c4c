#include "model/model_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/visible_text.h"
#include "model/config_fields.h"

namespace bitctl {
namespace {

constexpr int64_t kMaxLayers = 4096;

// What transformers' class of this model_type takes where config.json is silent.
struct Family {
  const char* model_type;
  const char* architecture;
  double norm_eps = 1e-6;
  int64_t max_position_embeddings = 32'768;
  double rope_theta = 10'000;
  const char* activation_field = "hidden_act";
  const char* activation = "silu";
  bool ties_embeddings = false;
  std::optional<int64_t> kv_heads = std::nullopt;  // else as many as heads
  std::optional<int64_t> head_dim = std::nullopt;  // else hidden_size / heads
};

constexpr std::array kFamilies{
    Family{"bitnet", "BitNetForCausalLM", 1e-5, 2048, 500'000, "hidden_act", "relu2", false, 5},
    Family{"gemma2", "Gemma2ForCausalLM", 1e-6, 8192, 10'000, "hidden_activation", "gelu_pytorch_tanh", true,
           4, 256},
    Family{"gemma3_text", "Gemma3ForCausalLM", 1e-6, 131'072, 1'000'000, "hidden_activation",
           "gelu_pytorch_tanh", true, 4, 256},
    Family{"gpt2", "GPT2LMHeadModel", 1e-5, 1024, 10'000, "activation_function", "gelu_new", true},
    Family{"llama", "LlamaForCausalLM", 1e-6, 2048},
    Family{"mistral", "MistralForCausalLM", 1e-6, 131'072, 10'000, "hidden_act", "silu", false, 8},
    Family{"phi3", "Phi3ForCausalLM", 1e-5, 4096},
    Family{"qwen2", "Qwen2ForCausalLM", 1e-6, 32'768, 10'000, "hidden_act", "silu", false, 32},
    Family{"qwen3", "Qwen3ForCausalLM", 1e-6, 32'768, 10'000, "hidden_act", "silu", false, 32, 128},
    Family{"smollm3", "SmolLM3ForCausalLM", 1e-6, 32'768, 2'000'000, "hidden_act", "silu", true, 4},
};

constexpr double kGemmaLocalTheta = 10'000;

const Family* family_of(ConfigFields& fields, std::string_view only) {
  const Json* type = fields.find("model_type");
  if (type == nullptr) {
    fields.refuse("model_type is missing");
    return nullptr;
  }
  std::string known;
  for (const Family& family : kFamilies) {
    if (!only.empty() && family.model_type != only) continue;
    if (*type == family.model_type) return &family;
    known += (known.empty() ? "" : ", ") + std::string(family.model_type);
  }
  fields.refuse(fmt::format("model_type {} is not implemented (known: {})", shown(*type), known));
  return nullptr;
}

// Fields that derived models carry, each with the values that change nothing. One that the model's family has
// was read before and is not looked at.
void check_unimplemented(ConfigFields& fields) {
  struct Only {
    const char* key;
    std::vector<Json> values;
  };
  static const Only kOnly[] = {
      {"hidden_act", {"silu", "swish"}},
      {"rope_interleaved", {false}},
      {"sliding_window", {}},
      {"use_sliding_window", {false}},
      {"attn_logit_softcapping", {}},
      {"final_logit_softcapping", {}},
      {"query_pre_attn_scalar", {}},
      {"use_bidirectional_attention", {false}},
      {"use_qk_norm", {false}},
      {"qk_layernorm", {false}},
      {"no_rope_layers", {}},
      {"attention_bias", {false}},
      {"mlp_bias", {false}},
      {"clip_qkv", {}},
      {"num_local_experts", {0, 1}},
      {"num_experts", {0, 1}},
      {"add_cross_attention", {false}},
      {"is_encoder_decoder", {false}},
      {"embedding_multiplier", {1}},
      {"attention_multiplier", {}},
      {"residual_multiplier", {1}},
      {"logits_scaling", {1}},
      {"logit_scale", {1}},
      {"scale_attn_by_inverse_layer_idx", {false}},
      {"scale_attn_weights", {true}},
  };
  for (const auto& [key, values] : kOnly) {
    if (fields.was_read(key)) continue;
    const Json* value = fields.find(key);
    if (value != nullptr && std::find(values.begin(), values.end(), *value) == values.end())
      fields.refuse(fmt::format("{} {} is not implemented", key, shown(*value)));
  }
}

void parse_activation(ConfigFields& fields, const Family& family, ModelConfig& config) {
  const std::string name = fields.text(family.activation_field, family.activation);
  if (name == "silu" || name == "swish")
    config.activation = Activation::silu;
  else if (name == "gelu_pytorch_tanh" || name == "gelu_new")
    config.activation = Activation::gelu_tanh;
  else if (name == "relu2")
    config.activation = Activation::relu2;
  else
    fields.refuse(fmt::format("{} {} is not implemented", family.activation_field, shown(name)));
}

void parse_heads(ConfigFields& fields, const Family& family, ModelConfig& config) {
  // A null means as many as heads, an absent field what the class has.
  const bool is_silent = family.kv_heads && !fields.is_present("num_key_value_heads");
  config.kv_heads = config.gpt2_blocks
                        ? config.heads
                        : fields.size("num_key_value_heads", is_silent ? *family.kv_heads : config.heads);
  if (config.heads % config.kv_heads != 0)
    fields.refuse(
        fmt::format("{} attention heads cannot share {} key and value heads", config.heads, config.kv_heads));
  const bool is_said = !config.gpt2_blocks && (fields.find("head_dim") != nullptr || family.head_dim);
  if (!is_said && config.hidden_size % config.heads != 0)
    fields.refuse(fmt::format("hidden_size {} is no multiple of num_attention_heads {}", config.hidden_size,
                              config.heads));
  const int64_t otherwise = family.head_dim.value_or(std::max<int64_t>(1, config.hidden_size / config.heads));
  config.head_dim = is_said ? fields.size("head_dim", otherwise) : otherwise;
  if (config.head_dim % 2 != 0)
    fields.refuse(fmt::format("head_dim {} is odd, RoPE needs pairs", config.head_dim));
  config.attention_scale = 1 / std::sqrt(static_cast<double>(config.head_dim));
}

// true: a sliding layer. Empty where config.json does not say it layer by layer.
std::vector<bool> layer_types(ConfigFields& fields, const ModelConfig& config, bool has_sliding) {
  const Json* types = fields.find("layer_types");
  std::vector<bool> sliding;
  if (types == nullptr) return sliding;
  if (!types->is_array() || types->size() != config.layers.size()) {
    fields.refuse(fmt::format("layer_types does not name {} layers", config.layers.size()));
    return sliding;
  }
  for (const Json& type : *types) {
    if (type != "full_attention" && !(has_sliding && type == "sliding_attention"))
      fields.refuse(fmt::format("layer type {} is not implemented", shown(type)));
    sliding.push_back(type == "sliding_attention");
  }
  return sliding;
}

// `otherwise` decides for each layer where layer_types does not.
template <typename IsSliding>
void parse_windows(ConfigFields& fields, ModelConfig& config, int64_t window, IsSliding otherwise) {
  const std::vector<bool> types = layer_types(fields, config, true);
  for (size_t i = 0; i < config.layers.size(); ++i) {
    const bool slides = types.empty() ? otherwise(i) : types[i];
    config.layers[i].window = slides ? window : 0;
    config.layers[i].local = slides && config.model_type == "gemma3_text";
  }
}

// The window, 0 where there is none; `otherwise` where the field is absent, and not null.
int64_t sliding_window(ConfigFields& fields, int64_t otherwise) {
  if (fields.find("sliding_window") == nullptr && fields.is_present("sliding_window")) return 0;
  return otherwise != 0 || fields.is_present("sliding_window") ? fields.size("sliding_window", otherwise) : 0;
}

void parse_no_rope_layers(ConfigFields& fields, ModelConfig& config) {
  const auto interval = static_cast<size_t>(fields.size("no_rope_layer_interval", 4));
  const Json* rotates = fields.find("no_rope_layers");
  if (rotates != nullptr && (!rotates->is_array() || rotates->size() != config.layers.size()))
    return fields.refuse(fmt::format("no_rope_layers does not name {} layers", config.layers.size()));
  for (size_t i = 0; i < config.layers.size(); ++i)
    config.layers[i].rotates = rotates != nullptr ? (*rotates)[i] != 0 : (i + 1) % interval != 0;
}

void parse_gemma(ConfigFields& fields, ModelConfig& config) {
  config.qkv_bias = config.output_bias = fields.flag("attention_bias");
  config.post_norms = config.norms_add_one = config.scales_embedding = true;
  config.attention_scale = 1 / std::sqrt(fields.positive("query_pre_attn_scalar", 256));
  const bool is_second = config.model_type == "gemma2";
  config.qk_norms = !is_second;
  // A null means none, an absent field what the class has.
  const auto softcap = [&](const char* key, double otherwise) {
    return fields.positive(key, fields.is_present(key) ? 0 : otherwise);
  };
  config.logit_softcap = softcap("final_logit_softcapping", is_second ? 30 : 0);
  if (is_second) config.attention_softcap = softcap("attn_logit_softcapping", 50);
  const auto pattern = static_cast<size_t>(is_second ? 2 : fields.size("sliding_window_pattern", 6));
  parse_windows(fields, config, sliding_window(fields, 4096),
                [&](size_t i) { return (i + 1) % pattern != 0; });
}

void parse_family(ConfigFields& fields, ModelConfig& config) {
  const std::string& type = config.model_type;
  const auto everywhere = [](size_t) { return true; };
  if (type == "llama" || type == "smollm3") {
    config.qkv_bias = config.output_bias = fields.flag("attention_bias");
    config.mlp_bias = fields.flag("mlp_bias");
  } else if (type == "qwen2") {
    config.qkv_bias = true;
  } else if (type == "qwen3" || type == "bitnet") {
    config.qkv_bias = config.output_bias = fields.flag("attention_bias");
    config.qk_norms = type == "qwen3";
    config.sub_norms = type == "bitnet";
  } else if (type == "mistral" || type == "phi3") {
    config.fused_projections = type == "phi3";
    parse_windows(fields, config, sliding_window(fields, type == "mistral" ? 4096 : 0), everywhere);
  } else if (type == "gpt2") {
    config.qkv_bias = config.output_bias = config.mlp_bias = true;
  } else {
    parse_gemma(fields, config);
  }
  if (type == "qwen2" || type == "qwen3") {
    const int64_t window = fields.flag("use_sliding_window") ? sliding_window(fields, 4096) : 0;
    const auto first = static_cast<size_t>(fields.size("max_window_layers", 28, INT32_MAX, 0));
    fields.find("sliding_window");  // without use_sliding_window it says nothing
    parse_windows(fields, config, window, [&](size_t i) { return i >= first; });
  } else if (type == "smollm3") {
    parse_no_rope_layers(fields, config);
    const int64_t window = fields.flag("use_sliding_window") ? sliding_window(fields, 0) : 0;
    fields.find("sliding_window");
    parse_windows(fields, config, window, [&](size_t i) { return !config.layers[i].rotates; });
  } else if (!fields.was_read("layer_types")) {
    layer_types(fields, config, false);
  }
}

void parse_bitnet_quantization(ConfigFields& fields, const Json& object, ModelConfig& config) {
  ConfigFields quantization(object);
  const std::string linear = quantization.text("linear_class", "bitlinear");
  const std::string mode = quantization.text("quantization_mode", "offline");
  if (quantization.flag("use_rms_norm"))
    quantization.refuse("quantization_config: use_rms_norm is not implemented");
  // Without a word, transformers leaves the head alone, and with another word it does not.
  const Json* left_alone = quantization.find("modules_to_not_convert");
  if (left_alone != nullptr && *left_alone != Json::array({"lm_head"}))
    quantization.refuse(
        fmt::format("quantization_config: modules_to_not_convert {} is not implemented", shown(*left_alone)));
  if (linear == "bitlinear" && mode == "offline")
    config.quantization = Quantization::ternary_divide;
  else if (linear == "autobitlinear" && mode == "offline")
    config.quantization = Quantization::ternary_multiply;
  else if (linear == "autobitlinear" && mode == "online")
    config.quantization = Quantization::ternary_at_load;
  else
    quantization.refuse(
        fmt::format("quantization_config: linear_class {} with quantization_mode {} is not implemented",
                    shown(linear), shown(mode)));
  if (!quantization.error().empty()) fields.refuse(quantization.error().substr(strlen("config.json: ")));
}

// Integers of 8 bits with a scale a row, as compressed-tensors has them: activations must stay what they are.
bool is_int8_by_rows(const Json& quantization) {
  if (get_text(quantization, "quant_method") != "compressed-tensors" ||
      get_text(quantization, "format") != "int-quantized")
    return false;
  const auto groups = quantization.find("config_groups");
  if (groups == quantization.end() || !groups->is_object()) return false;
  return std::all_of(groups->begin(), groups->end(), [](const Json& group) {
    const auto weights = group.is_object() ? group.find("weights") : group.end();
    if (!group.is_object() || weights == group.end() || !weights->is_object()) return false;
    const auto activations = group.find("input_activations");
    return (activations == group.end() || activations->is_null()) &&
           get_unsigned(*weights, "num_bits") == 8 && get_text(*weights, "type") == "int" &&
           get_text(*weights, "strategy") == "channel" && get_flag(*weights, "symmetric");
  });
}

void parse_quantization(ConfigFields& fields, ModelConfig& config) {
  const Json* quantization = fields.find("quantization_config");
  if (config.names == TensorNames::bit_llama) config.quantization = Quantization::signs_at_load;
  if (quantization == nullptr) return;
  if (quantization->is_object() && get_text(*quantization, "quant_method") == "bitnet")
    parse_bitnet_quantization(fields, *quantization, config);
  else if (!quantization->is_object() || !is_int8_by_rows(*quantization))
    fields.refuse(fmt::format("quantization_config {} is not implemented", shown(*quantization)));
}

void parse_sizes(ConfigFields& fields, const Family& family, ModelConfig& config) {
  const bool gpt2 = config.gpt2_blocks;
  config.vocab_size = fields.size("vocab_size");
  config.hidden_size = fields.size(gpt2 ? "n_embd" : "hidden_size");
  config.intermediate_size =
      gpt2 ? fields.size("n_inner", 4 * config.hidden_size) : fields.size("intermediate_size");
  const int64_t layers = fields.size(gpt2 ? "n_layer" : "num_hidden_layers", std::nullopt, kMaxLayers);
  config.layers.assign(static_cast<size_t>(layers), {.rotates = !gpt2});
  config.heads = fields.size(gpt2 ? "n_head" : "num_attention_heads");
  config.max_position_embeddings =
      fields.size(gpt2 ? "n_positions" : "max_position_embeddings", family.max_position_embeddings);
  config.norm_eps = fields.positive(gpt2 ? "layer_norm_epsilon" : "rms_norm_eps", family.norm_eps);
  config.tie_word_embeddings = fields.flag("tie_word_embeddings", family.ties_embeddings);
}

void parse_ropes(ConfigFields& fields, const Family& family, ModelConfig& config) {
  if (config.gpt2_blocks) return;
  const bool by_type = config.model_type == "gemma3_text";
  config.rope =
      parse_rope(fields, config.max_position_embeddings, family.rope_theta, by_type ? "full_attention" : "");
  if (by_type)
    config.local_rope =
        parse_rope(fields, config.max_position_embeddings, kGemmaLocalTheta, "sliding_attention");
  for (const RopeConfig* rope : {&config.rope, &config.local_rope}) {
    if (rope->rotated_part != 1 && config.model_type != "phi3")  // the others' classes do not look at it
      fields.refuse(fmt::format("partial_rotary_factor {:g} is not implemented", rope->rotated_part));
    const int64_t turning = rotated_dimensions(*rope, config.head_dim);
    if (turning < 2 || turning % 2 != 0)
      fields.refuse(fmt::format("partial_rotary_factor {:g} turns {} of {} dimensions, RoPE needs pairs",
                                rope->rotated_part, turning, config.head_dim));
    for (const auto* factors : {&rope->short_factor, &rope->long_factor})
      if (rope->type == RopeConfig::Type::longrope && factors->size() != static_cast<size_t>(turning / 2))
        fields.refuse(
            fmt::format("longrope has {} factors for {} frequencies", factors->size(), turning / 2));
  }
}

}  // namespace

Result<ModelConfig> parse_model_config(std::string_view config_json, std::string_view only) {
  const auto parsed = parse_strict_json(config_json);
  if (!parsed)
    return fail(ErrorKind::invalid, fmt::format("config.json, byte {}: {}", parsed.error().byte,
                                                shortened(visible_text(parsed.error().reason), 200)));
  if (!parsed->is_object()) return fail(ErrorKind::invalid, "config.json is no JSON object");
  const SpelledConfig spelled = spelled_for_text(*parsed);
  ConfigFields fields(spelled.config);
  if (!spelled.error.empty()) fields.refuse(spelled.error);
  ModelConfig config;
  config.names = spelled.names;
  if (const Family* family = fields.error().empty() ? family_of(fields, only) : nullptr) {
    config.model_type = family->model_type;
    config.gpt2_blocks = config.model_type == "gpt2";
    const Json* architectures = fields.find("architectures");
    if (architectures != nullptr && *architectures != Json::array({family->architecture}))
      fields.refuse(fmt::format("architectures {} is not implemented (known: {})", shown(*architectures),
                                family->architecture));
    parse_sizes(fields, *family, config);
    parse_activation(fields, *family, config);
    parse_heads(fields, *family, config);
    parse_family(fields, config);
    parse_quantization(fields, config);
    check_unimplemented(fields);
    parse_ropes(fields, *family, config);
  }
  if (!fields.error().empty()) return fail(ErrorKind::invalid, fields.error());
  return config;
}

}  // namespace bitctl
