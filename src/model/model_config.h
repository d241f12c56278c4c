// What a config.json says about a causal language model, in the spelling of transformers 4 or 5 or in one of
// config_spelling.h, every field checked once. Pure facts: nothing here computes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/config_spelling.h"
#include "model/rope_config.h"

namespace bitctl {

enum class Activation { silu, gelu_tanh, relu2 };

// How linear layers (all but the head) were quantized for training or storage.
enum class Quantization {
  none,              // tensors that are integers of 8 bits carry their own scales all the same
  ternary_multiply,  // BitNet's packing, products times weight_scale ("autobitlinear")
  ternary_divide,    // the same, products divided by it ("bitlinear")
  ternary_at_load,   // floats that are made ternary by whoever loads them ("online")
  signs_at_load,     // the same without a scale, and activations stay floats (Bit-Llama's)
};

struct LayerConfig {
  int64_t window = 0;   // a position sees itself and the window - 1 before it; 0: all before it
  bool rotates = true;  // RoPE is applied
  bool local = false;   // by ModelConfig::local_rope
};

struct ModelConfig {
  std::string model_type;
  TensorNames names = TensorNames::text_model;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;  // divides heads
  int64_t head_dim = 0;  // even
  int64_t max_position_embeddings = 0;
  double norm_eps = 0;
  Activation activation = Activation::silu;
  bool tie_word_embeddings = false;
  Quantization quantization = Quantization::none;
  std::vector<LayerConfig> layers;
  RopeConfig rope;
  RopeConfig local_rope;  // of layers that say so

  bool qkv_bias = false;
  bool output_bias = false;  // of the attention
  bool mlp_bias = false;

  // Where families differ from Llama.
  bool qk_norms = false;           // each head of queries and keys is normalized before RoPE
  bool sub_norms = false;          // a norm before the attention's and the MLP's last product (BitNet)
  bool post_norms = false;         // a norm after attention and MLP, before they are added (Gemma)
  bool norms_add_one = false;      // a norm's factor is 1 + its weight (Gemma)
  bool fused_projections = false;  // qkv_proj and gate_up_proj (Phi-3)
  bool gpt2_blocks = false;        // LayerNorm, learned positions, transposed matrices, an MLP without a gate
  bool scales_embedding = false;   // by the root of hidden_size, in the embedding's dtype (Gemma)
  double attention_scale = 0;      // of queries times keys
  double attention_softcap = 0;    // c · tanh(score / c); 0: none
  double logit_softcap = 0;
};

// Error::invalid names the field. A field that would change the results and is not implemented is refused;
// one that changes nothing is ignored, whoever wrote it. `only`: the one model_type that the caller knows;
// empty: all that are known here.
Result<ModelConfig> parse_model_config(std::string_view config_json, std::string_view only = {});

}  // namespace bitctl
