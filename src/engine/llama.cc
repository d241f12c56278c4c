#include "engine/llama.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "engine/door.h"

namespace bitctl::engine {
namespace {

constexpr int64_t kChunk = 512;  // prompt positions at a time: bounds the memory of activations and mask

at::Tensor apply(const Linear& linear, const at::Tensor& x) {
  return at::linear(x, linear.weight, linear.bias);
}

// The mean is taken in float32 whatever the dtype, and rounded before the weight is applied.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = at::rsqrt(wide.pow(2).mean(-1, true) + eps);
  return weight * (wide * scale).to(x.scalar_type());
}

at::Tensor mlp(const LlamaLayer& layer, const at::Tensor& x) {
  return apply(layer.down, at::silu(apply(layer.gate, x)) * apply(layer.up, x));
}

// What is added to the scores: nothing where row i, at position `position` + i, may look, else -infinity.
// Undefined for one row, which sees all.
std::optional<at::Tensor> causal_mask(int64_t position, int64_t count, at::ScalarType dtype) {
  if (count == 1) return std::nullopt;
  return at::full({count, position + count}, -INFINITY, dtype).triu(position + 1);
}

}  // namespace

Llama::Llama(const ModelConfig& config, LlamaWeights weights, int64_t max_context, int threads)
    : config_(config),
      weights_(std::move(weights)),
      rope_(config.rope, config.head_dim),
      cache_(static_cast<int64_t>(config.layers.size()), config.kv_heads,
             max_context != 0 ? max_context : config.max_position_embeddings, config.head_dim,
             weights_.embedding.scalar_type()),
      threads_(threads != 0 ? threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))) {
}

void Llama::check(const int32_t* ids, int64_t count, int64_t position) const {
  if (count < 1) refuse("no token ids");
  if (position < 0 || position > length_)
    refuse("position ", position, " leaves a gap: the cache holds ", length_, " positions");
  if (count > max_context() - position)
    refuse("the context is full: ", count, " tokens at position ", position, " of ", max_context());
  for (int64_t i = 0; i < count; ++i)
    if (ids[i] < 0 || ids[i] >= config_.vocab_size)
      refuse("token id ", ids[i], " is outside the vocabulary of ", config_.vocab_size);
}

at::Tensor Llama::attention(const LlamaLayer& layer, const KvCache::Layer& cache, const at::Tensor& x,
                            const Rotation& rotation, const std::optional<at::Tensor>& mask,
                            int64_t position) const {
  const int64_t count = x.size(0);
  const auto heads = [&](const Linear& linear, int64_t number) {
    return apply(linear, x).view({count, number, config_.head_dim}).transpose(0, 1);
  };
  cache.keys.narrow(1, position, count).copy_(rotate(heads(layer.k, config_.kv_heads), rotation));
  cache.values.narrow(1, position, count).copy_(heads(layer.v, config_.kv_heads));
  const auto so_far = [&](const at::Tensor& t) { return t.narrow(1, 0, position + count).unsqueeze(0); };
  const at::Tensor mixed = at::scaled_dot_product_attention(
      rotate(heads(layer.q, config_.heads), rotation).unsqueeze(0), so_far(cache.keys), so_far(cache.values),
      mask,
      /*dropout_p=*/0, /*is_causal=*/false, /*scale=*/std::nullopt, /*enable_gqa=*/true);
  return apply(layer.o, mixed.squeeze(0).transpose(0, 1).reshape({count, config_.heads * config_.head_dim}));
}

at::Tensor Llama::hidden_states(const int32_t* ids, int64_t count, int64_t position) {
  const at::Tensor tokens = at::empty({count}, at::kLong);
  std::copy_n(ids, count, tokens.mutable_data_ptr<int64_t>());
  const Rotation rotation = rope_.rotation(position, count, dtype());
  const auto mask = causal_mask(position, count, dtype());
  at::Tensor x = at::embedding(weights_.embedding, tokens);
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    const LlamaLayer& layer = weights_.layers[i];
    x = x + attention(layer, cache_.layer(i), rms_norm(x, layer.input_norm, config_.norm_eps), rotation, mask,
                      position);
    x = x + mlp(layer, rms_norm(x, layer.post_attention_norm, config_.norm_eps));
  }
  return x;
}

void Llama::forward(const int32_t* ids, int64_t count, int64_t position, float* logits) {
  check(ids, count, position);
  const c10::InferenceMode no_gradients;
  if (at::get_num_threads() != threads_) at::set_num_threads(threads_);
  length_ = position;
  at::Tensor x;
  for (int64_t done = 0; done < count; done += x.size(0)) {
    x = hidden_states(ids + done, std::min(count - done, kChunk), position + done);
    length_ += x.size(0);
  }
  const at::Tensor last = rms_norm(x.narrow(0, x.size(0) - 1, 1), weights_.norm, config_.norm_eps);
  const at::Tensor out = apply(weights_.head, last).to(at::kFloat);
  std::copy_n(out.const_data_ptr<float>(), config_.vocab_size, logits);
}

}  // namespace bitctl::engine
