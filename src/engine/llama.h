// Llama on libtorch: the reference in C++. It computes in the dtype of its weights, with the operations of
// transformers in their order, so that float32 gives transformers' own tokens.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/kv_cache.h"
#include "engine/llama_config.h"
#include "engine/llama_weights.h"
#include "engine/rope.h"

namespace bitctl::engine {

class Llama {
 public:
  // `threads` 0: as many as the machine has. `max_context` 0: the model's own limit.
  Llama(const ModelConfig& config, LlamaWeights weights, int64_t max_context, int threads);

  const ModelConfig& config() const { return config_; }
  int64_t max_context() const { return cache_.max_context(); }
  at::ScalarType dtype() const { return weights_.embedding.scalar_type(); }

  // See model_forward in engine_api.h. A failed call leaves the cache cut at `position`.
  void forward(const int32_t* ids, int64_t count, int64_t position, float* logits);

 private:
  void check(const int32_t* ids, int64_t count, int64_t position) const;
  at::Tensor hidden_states(const int32_t* ids, int64_t count, int64_t position);
  at::Tensor attention(const LlamaLayer& layer, const KvCache::Layer& cache, const at::Tensor& x,
                       const Rotation& rotation, const std::optional<at::Tensor>& mask,
                       int64_t position) const;

  ModelConfig config_;
  LlamaWeights weights_;
  Rope rope_;
  KvCache cache_;
  int threads_;
  int64_t length_ = 0;  // positions the cache holds
};

}  // namespace bitctl::engine
