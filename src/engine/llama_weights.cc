#include "engine/llama_weights.h"

#include <cstring>
#include <map>
#include <string>
#include <string_view>

#include "base/visible_text.h"
#include "engine/door.h"
#include "engine/tensor_view.h"
#include "model/differences.h"

namespace bitctl::engine {
namespace {

// Where a tensor of the checkpoint belongs.
struct Slot {
  std::string name;
  std::vector<int64_t> shape;
  at::Tensor* tensor;
};

std::vector<Slot> slots_of(const ModelConfig& config, LlamaWeights& weights) {
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const int64_t q_size = config.heads * config.head_dim, kv_size = config.kv_heads * config.head_dim;
  std::vector<Slot> slots;
  const auto linear = [&](const std::string& name, int64_t out, int64_t in, bool bias, Linear& to) {
    slots.push_back({name + ".weight", {out, in}, &to.weight});
    if (bias) slots.push_back({name + ".bias", {out}, &to.bias});
  };
  slots.push_back({"model.embed_tokens.weight", {config.vocab_size, hidden}, &weights.embedding});
  weights.layers.resize(config.layers.size());
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    LlamaLayer& layer = weights.layers[i];
    const std::string prefix = c10::str("model.layers.", i, ".");
    slots.push_back({prefix + "input_layernorm.weight", {hidden}, &layer.input_norm});
    linear(prefix + "self_attn.q_proj", q_size, hidden, config.qkv_bias, layer.q);
    linear(prefix + "self_attn.k_proj", kv_size, hidden, config.qkv_bias, layer.k);
    linear(prefix + "self_attn.v_proj", kv_size, hidden, config.qkv_bias, layer.v);
    linear(prefix + "self_attn.o_proj", hidden, q_size, config.output_bias, layer.o);
    slots.push_back({prefix + "post_attention_layernorm.weight", {hidden}, &layer.post_attention_norm});
    linear(prefix + "mlp.gate_proj", inner, hidden, config.mlp_bias, layer.gate);
    linear(prefix + "mlp.up_proj", inner, hidden, config.mlp_bias, layer.up);
    linear(prefix + "mlp.down_proj", hidden, inner, config.mlp_bias, layer.down);
  }
  slots.push_back({"model.norm.weight", {hidden}, &weights.norm});
  if (!config.tie_word_embeddings) linear("lm_head", config.vocab_size, hidden, false, weights.head);
  return slots;
}

at::Tensor aligned(const at::Tensor& view) {
  if (reinterpret_cast<uintptr_t>(view.const_data_ptr()) % view.element_size() == 0) return view;
  at::Tensor copy = at::empty(view.sizes(), view.options());
  std::memcpy(copy.mutable_data_ptr(), view.const_data_ptr(), view.nbytes());
  return copy;
}

bool is_computed(at::ScalarType type) {
  return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf;
}

// Old checkpoints carry the frequencies of RoPE, which follow from the config.
bool is_derived(std::string_view name) { return name.ends_with(".rotary_emb.inv_freq"); }

bool same_content(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

}  // namespace

LlamaWeights collect_weights(const ModelConfig& config, const bitctl_tensor* tensors, size_t count) {
  std::map<std::string_view, const bitctl_tensor*> given;
  for (size_t i = 0; i < count; ++i) given[tensors[i].name] = &tensors[i];

  LlamaWeights weights;
  const std::vector<Slot> slots = slots_of(config, weights);
  const auto embedding = given.find(slots.front().name);
  const std::string dtype = embedding == given.end() ? "" : embedding->second->dtype;
  Differences differences;
  for (const Slot& slot : slots) {
    const auto at = given.find(slot.name);
    if (at == given.end()) {
      differences.add(slot.name + " is missing");
      continue;
    }
    const bitctl_tensor& tensor = *at->second;
    if (at::IntArrayRef(tensor.shape, tensor.rank) != at::IntArrayRef(slot.shape))
      differences.add(
          c10::str(slot.name, " is ", type_and_shape(tensor), " instead of ", at::IntArrayRef(slot.shape)));
    else if (tensor.dtype != dtype && !dtype.empty())
      differences.add(c10::str(slot.name, " is ", type_and_shape(tensor), " and the embedding ", dtype));
    else
      *slot.tensor = aligned(view_of(tensor));
    given.erase(at);
  }
  // A tied head may have been saved all the same; it must then be what it is tied to.
  const auto head = given.find("lm_head.weight");
  if (head != given.end() && weights.embedding.defined()) {
    if (!same_content(view_of(*head->second), weights.embedding))
      differences.add("lm_head.weight is not the embedding, though tie_word_embeddings is true");
    given.erase(head);
  }
  for (const auto& [name, tensor] : given)
    if (!is_derived(name)) differences.add(shortened(visible_text(name), 100) + " is not expected");
  if (!differences.none()) refuse(differences.text());
  if (!is_computed(weights.embedding.scalar_type()))
    refuse("weights of dtype ", dtype, " are not implemented (known: F32, BF16, F16)");
  if (config.tie_word_embeddings) weights.head.weight = weights.embedding;
  return weights;
}

}  // namespace bitctl::engine
