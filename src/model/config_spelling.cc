#include "model/config_spelling.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "model/config_fields.h"

namespace bitctl {
namespace {

// Of a nested configuration transformers 4 writes only what differs from its class.
SpelledConfig text_part_of_gemma3(const Json& config) {
  SpelledConfig spelled{{}, TensorNames::multimodal, {}};
  const auto text = config.find("text_config");
  if (text == config.end() || !text->is_object()) {
    spelled.error = "gemma3 needs text_config, an object";
    return spelled;
  }
  spelled.config = *text;
  for (const char* shared : {"quantization_config", "tie_word_embeddings"}) {
    const auto outer = config.find(shared);
    if (outer == config.end()) continue;
    const auto [own, is_new] = spelled.config.emplace(shared, Json(*outer));
    if (!is_new && *own != *outer)
      spelled.error = fmt::format("it contradicts itself: {} is {} and in text_config {}", shared,
                                  shown(*outer), shown(*own));
  }
  const auto [type, is_silent] = spelled.config.emplace("model_type", Json("gemma3_text"));
  if (!is_silent && *type != "gemma3_text")
    spelled.error = fmt::format("text_config of model_type {} is not implemented", shown(*type));
  const auto architectures = config.find("architectures");
  if (architectures != config.end() && *architectures != Json::array({"Gemma3ForConditionalGeneration"}))
    spelled.error = fmt::format("architectures {} is not implemented (known: Gemma3ForConditionalGeneration)",
                                shown(*architectures));
  spelled.config.erase("architectures");
  static constexpr std::array<std::pair<const char*, unsigned>, 6> kDefaults{{{"vocab_size", 262'208},
                                                                              {"hidden_size", 2304},
                                                                              {"intermediate_size", 9216},
                                                                              {"num_hidden_layers", 26},
                                                                              {"num_attention_heads", 8},
                                                                              {"num_key_value_heads", 4}}};
  for (const auto& [key, value] : kDefaults) spelled.config.emplace(key, Json(value));
  return spelled;
}

bool is_bit_llama(const Json& config) {
  const auto type = config.find("model_type");
  if (type != config.end()) return *type == "bit_llama";
  return config.contains("arch") || config.contains("hidden_dim");
}

SpelledConfig bit_llama(Json config) {
  SpelledConfig spelled{std::move(config), TensorNames::bit_llama, {}};
  Json& fields = spelled.config;
  static constexpr std::array<std::pair<const char*, const char*>, 6> kAliases{
      {{"hidden_dim", "hidden_size"},
       {"num_layers", "num_hidden_layers"},
       {"n_layers", "num_hidden_layers"},
       {"n_heads", "num_attention_heads"},
       {"n_kv_heads", "num_key_value_heads"},
       {"intermediate_dim", "intermediate_size"}}};
  for (const auto& [own, theirs] : kAliases)
    if (const auto at = fields.find(own); at != fields.end() && !at->is_null() && !fields.contains(theirs))
      fields[theirs] = Json(*at);
  // What it is where config.json does not say it; of these, the first two cannot be said.
  fields["rms_norm_eps"] = 1e-5;
  fields["tie_word_embeddings"] = false;
  const auto hidden = get_unsigned(fields, "hidden_size");
  if (hidden && *hidden <= INT32_MAX) fields.emplace("intermediate_size", Json(*hidden * 4));
  const std::string arch = fields.contains("arch") ? get_text(fields, "arch") : "ttt";
  if (arch != "llama")
    spelled.error = fmt::format("arch {} of Bit-Llama is not implemented (known: llama)", shown(arch));
  fields["model_type"] = "llama";
  fields.erase("architectures");
  return spelled;
}

}  // namespace

SpelledConfig spelled_for_text(Json config) {
  if (get_text(config, "model_type") == "gemma3") return text_part_of_gemma3(config);
  if (is_bit_llama(config)) return bit_llama(std::move(config));
  return {std::move(config), TensorNames::text_model, {}};
}

}  // namespace bitctl
