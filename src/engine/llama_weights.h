// The tensors of a Llama under the names of its Hugging Face checkpoint.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "engine/llama_config.h"
#include "engine_api/engine_api.h"

namespace bitctl::engine {

// y = x·Wᵀ + b.
struct Linear {
  at::Tensor weight;  // [out, in]
  at::Tensor bias;    // [out], or undefined
};

struct LlamaLayer {
  at::Tensor input_norm;  // [hidden]
  Linear q, k, v, o;
  at::Tensor post_attention_norm;  // [hidden]
  Linear gate, up, down;
};

struct LlamaWeights {
  at::Tensor embedding;  // [vocab, hidden]
  std::vector<LlamaLayer> layers;
  at::Tensor norm;  // [hidden]
  Linear head;      // the embedding itself where the two are tied
};

// Views of the caller's memory, copied only where a tensor lies unaligned for its dtype. All are of one
// dtype: F32, BF16 or F16. Refusal names the first five differences between what the config asks for and what
// is there.
LlamaWeights collect_weights(const ModelConfig& config, const bitctl_tensor* tensors, size_t count);

}  // namespace bitctl::engine
