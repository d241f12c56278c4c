#include "engine/llama_config.h"

#include <cmath>
#include <map>
#include <optional>
#include <vector>

#include "base/strict_json.h"
#include "base/visible_text.h"
#include "engine/door.h"

namespace bitctl::engine {
namespace {

constexpr int64_t kMaxSize = INT32_MAX;
constexpr int64_t kMaxLayers = 4096;

std::string shown(const Json& value) { return shortened(dump_line(value), 60); }

// The field, or null where it is absent or null: transformers writes both and means the same.
const Json* field(const Json& object, std::string_view key) {
  const auto at = object.find(std::string(key));
  return at == object.end() || at->is_null() ? nullptr : &*at;
}

int64_t size_field(const Json& config, std::string_view key, std::optional<int64_t> otherwise = std::nullopt,
                   int64_t most = kMaxSize) {
  const Json* value = field(config, key);
  if (value == nullptr) {
    if (!otherwise) refuse("config.json: ", key, " is missing");
    return *otherwise;
  }
  if (!value->is_number_unsigned() || value->get<uint64_t>() == 0 ||
      value->get<uint64_t>() > static_cast<uint64_t>(most))
    refuse("config.json: ", key, " is ", shown(*value), ", it must be an integer from 1 to ", most);
  return value->get<int64_t>();
}

double positive(std::string_view key, const Json& value) {
  if (!value.is_number() || !(value.get<double>() > 0))
    refuse("config.json: ", key, " is ", shown(value), ", it must be a number above 0");
  return value.get<double>();
}

bool flag_field(const Json& config, std::string_view key) {
  const Json* value = field(config, key);
  if (value != nullptr && !value->is_boolean())
    refuse("config.json: ", key, " is ", shown(*value), ", no true or false");
  return value != nullptr && value->get<bool>();
}

void check_architecture(const Json& config) {
  const Json* type = field(config, "model_type");
  if (type == nullptr) refuse("config.json: model_type is missing");
  if (*type != "llama") refuse("model_type ", shown(*type), " is not implemented (known: llama)");
  const Json* architectures = field(config, "architectures");
  if (architectures != nullptr && *architectures != Json::array({"LlamaForCausalLM"}))
    refuse("architectures ", shown(*architectures), " is not implemented (known: LlamaForCausalLM)");
}

// Fields that derived models carry, each with the values under which a Llama is still just a Llama.
void check_unimplemented(const Json& config) {
  struct Only {
    const char* key;
    std::vector<Json> values;
  };
  static const Only kOnly[] = {
      {"hidden_act", {"silu", "swish"}}, {"quantization_config", {}},
      {"rope_interleaved", {false}},     {"sliding_window", {}},
      {"use_sliding_window", {false}},   {"attn_logit_softcapping", {}},
      {"final_logit_softcapping", {}},   {"use_qk_norm", {false}},
      {"qk_layernorm", {false}},         {"no_rope_layers", {}},
      {"num_local_experts", {0, 1}},     {"add_cross_attention", {false}},
      {"is_encoder_decoder", {false}},   {"embedding_multiplier", {1}},
      {"attention_multiplier", {}},      {"residual_multiplier", {1}},
      {"logits_scaling", {1}},           {"logit_scale", {1}},
  };
  for (const auto& [key, values] : kOnly) {
    const Json* value = field(config, key);
    if (value != nullptr && std::find(values.begin(), values.end(), *value) == values.end())
      refuse("config.json: ", key, " ", shown(*value), " is not implemented");
  }
  if (const Json* types = field(config, "layer_types"))
    for (const auto& type : *types)
      if (type != "full_attention") refuse("config.json: layer type ", shown(type), " is not implemented");
}

// RoPE is spelled as rope_parameters (transformers 5), as rope_scaling with rope_theta beside it (4), or half
// and half; what is said twice must be said alike.
class RopeFields {
 public:
  explicit RopeFields(const Json& config) {
    take_object(config, "rope_parameters");
    take_object(config, "rope_scaling");
    for (const char* key : {"rope_theta", "partial_rotary_factor", "original_max_position_embeddings"})
      if (const Json* value = field(config, key)) take(key, *value, "config.json");
  }

  // The value, which then counts as understood.
  std::optional<Json> use(const std::string& key) {
    const auto at = fields_.find(key);
    if (at == fields_.end()) return std::nullopt;
    Json value = std::move(at->second.value);
    fields_.erase(at);
    return value;
  }
  double number(const std::string& key, std::optional<double> otherwise = std::nullopt) {
    const auto value = use(key);
    if (value) return positive(key, *value);
    if (!otherwise) refuse("config.json: RoPE needs ", key);
    return *otherwise;
  }
  void refuse_the_rest(const std::string& type) const {
    if (!fields_.empty())
      refuse("config.json: ", fields_.begin()->first, " is not implemented for rope_type \"", type, "\"");
  }

 private:
  struct Field {
    Json value;
    std::string where;
  };

  void take_object(const Json& config, const char* where) {
    const Json* object = field(config, where);
    if (object == nullptr) return;
    if (!object->is_object()) refuse("config.json: ", where, " is no object");
    for (const auto& [key, value] : object->items()) {
      if (value.is_object())
        refuse("config.json: ", where, " of its own for \"", shortened(visible_text(key), 40),
               "\" is not implemented");
      if (!value.is_null()) take(key == "type" ? "rope_type" : key, value, where);
    }
  }
  void take(const std::string& key, const Json& value, const std::string& where) {
    const auto [at, is_new] = fields_.try_emplace(key, Field{value, where});
    if (!is_new && at->second.value != value)
      refuse("config.json contradicts itself: ", shortened(visible_text(key), 40), " is ",
             shown(at->second.value), " in ", at->second.where, " and ", shown(value), " in ", where);
  }

  std::map<std::string, Field> fields_;
};

RopeConfig parse_rope(const Json& config, int64_t max_position_embeddings) {
  RopeFields fields(config);
  RopeConfig rope;
  const Json type = fields.use("rope_type").value_or("default");
  rope.theta = fields.number("rope_theta", rope.theta);
  const double original =
      fields.number("original_max_position_embeddings", static_cast<double>(max_position_embeddings));
  if (fields.number("partial_rotary_factor", 1) != 1)
    refuse("config.json: partial_rotary_factor is not implemented");
  if (type == "linear") {
    rope.type = RopeConfig::Type::linear;
    rope.factor = fields.number("factor");
  } else if (type == "llama3") {
    rope.type = RopeConfig::Type::llama3;
    rope.factor = fields.number("factor");
    rope.low_freq_factor = fields.number("low_freq_factor");
    rope.high_freq_factor = fields.number("high_freq_factor");
    rope.original_max_position_embeddings = original;
    if (rope.high_freq_factor <= rope.low_freq_factor)
      refuse("config.json: high_freq_factor must be above low_freq_factor");
  } else if (type != "default") {
    refuse("config.json: rope_type ", shown(type), " is not implemented (known: default, linear, llama3)");
  }
  fields.refuse_the_rest(type.get<std::string>());
  return rope;
}

}  // namespace

LlamaConfig parse_llama_config(std::string_view config_json) {
  const auto parsed = parse_strict_json(config_json);
  if (!parsed)
    refuse("config.json, byte ", parsed.error().byte, ": ",
           shortened(visible_text(parsed.error().reason), 200));
  const Json& json = *parsed;
  if (!json.is_object()) refuse("config.json is no JSON object");
  check_architecture(json);
  check_unimplemented(json);

  LlamaConfig config;
  config.vocab_size = size_field(json, "vocab_size");
  config.hidden_size = size_field(json, "hidden_size");
  config.intermediate_size = size_field(json, "intermediate_size");
  config.layers = size_field(json, "num_hidden_layers", std::nullopt, kMaxLayers);
  config.heads = size_field(json, "num_attention_heads");
  config.kv_heads = size_field(json, "num_key_value_heads", config.heads);
  config.max_position_embeddings = size_field(json, "max_position_embeddings", 2048);
  const Json* eps = field(json, "rms_norm_eps");
  config.rms_norm_eps = eps != nullptr ? positive("rms_norm_eps", *eps) : 1e-6;
  config.attention_bias = flag_field(json, "attention_bias");
  config.mlp_bias = flag_field(json, "mlp_bias");
  config.tie_word_embeddings = flag_field(json, "tie_word_embeddings");
  if (config.heads % config.kv_heads != 0)
    refuse("config.json: ", config.heads, " attention heads cannot share ", config.kv_heads,
           " key and value heads");
  if (field(json, "head_dim") == nullptr && config.hidden_size % config.heads != 0)
    refuse("config.json: hidden_size ", config.hidden_size, " is no multiple of num_attention_heads ",
           config.heads);
  config.head_dim = size_field(json, "head_dim", config.hidden_size / config.heads);
  if (config.head_dim % 2 != 0)
    refuse("config.json: head_dim ", config.head_dim, " is odd, RoPE needs pairs");
  config.rope = parse_rope(json, config.max_position_embeddings);
  return config;
}

}  // namespace bitctl::engine
