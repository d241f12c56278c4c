// A Llama's config.json, in the spelling of transformers 4 or 5, every field checked once.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace bitctl::engine {

struct RopeConfig {
  enum class Type { plain, linear, llama3 };  // "default", "linear", "llama3"

  Type type = Type::plain;
  double theta = 10'000;
  double factor = 1;  // linear, llama3
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  double original_max_position_embeddings = 0;
};

struct LlamaConfig {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;  // divides heads
  int64_t head_dim = 0;  // even
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 0;
  bool attention_bias = false;
  bool mlp_bias = false;
  bool tie_word_embeddings = false;
  RopeConfig rope;
};

// Refusal names the field. A field that would change the results and is not implemented is refused; one that
// changes nothing is ignored, whoever wrote it.
LlamaConfig parse_llama_config(std::string_view config_json);

}  // namespace bitctl::engine
