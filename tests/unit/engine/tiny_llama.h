// A Llama of a few kilobytes with random weights, straight from memory.
#pragma once

#include <cstring>
#include <random>

#include "base/strict_json.h"
#include "unit/engine/engine_fixture.h"

namespace bitctl {

struct TinyLlama {
  Json config = Json::parse(R"({
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 40, "hidden_size": 16,
    "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true})");
  std::vector<OwnedTensor> tensors;
  size_t shift = 0;  // off the alignment, all tensors

  TinyLlama() {
    std::mt19937 random(7);
    add("model.embed_tokens.weight", {40, 16}, random);
    for (const char* layer : {"model.layers.0.", "model.layers.1."}) {
      const std::string prefix = layer;
      add(prefix + "input_layernorm.weight", {16}, random);
      add(prefix + "self_attn.q_proj.weight", {16, 16}, random);
      add(prefix + "self_attn.k_proj.weight", {8, 16}, random);
      add(prefix + "self_attn.v_proj.weight", {8, 16}, random);
      add(prefix + "self_attn.o_proj.weight", {16, 16}, random);
      add(prefix + "post_attention_layernorm.weight", {16}, random);
      add(prefix + "mlp.gate_proj.weight", {24, 16}, random);
      add(prefix + "mlp.up_proj.weight", {24, 16}, random);
      add(prefix + "mlp.down_proj.weight", {16, 24}, random);
    }
    add("model.norm.weight", {16}, random);
  }

  void add(const std::string& name, std::vector<int64_t> shape, std::mt19937& random) {
    size_t count = 1;
    for (const int64_t size : shape) count *= static_cast<size_t>(size);
    std::normal_distribution<float> normal(0, 0.5);
    std::vector<float> values(count);
    for (auto& value : values) value = normal(random);
    tensors.push_back({name, "F32", std::move(shape),
                       std::string(reinterpret_cast<const char*>(values.data()), count * 4)});
  }
  OwnedTensor& tensor(const std::string& name) {
    for (auto& tensor : tensors)
      if (tensor.name == name) return tensor;
    throw std::out_of_range(name);
  }
  void remove(const std::string& name) {
    std::erase_if(tensors, [&](const OwnedTensor& tensor) { return tensor.name == name; });
  }
};

// The model opened, its tensors kept, counting how often the engine let go of them.
class OpenedLlama {
 public:
  explicit OpenedLlama(TinyLlama llama, bitctl_model_options options = {}) : llama_(std::move(llama)) {
    std::vector<bitctl_tensor> views;
    for (auto& tensor : llama_.tensors) {
      tensor.shift = llama_.shift;
      views.push_back(tensor.view());
    }
    options.owner = this;
    options.release = [](void* self) { ++static_cast<OpenedLlama*>(self)->released_; };
    bitctl_engine_error error;
    if (the_engine().model_open(llama_.config.dump().c_str(), views.data(), views.size(), &options, &model_,
                                &info_, &error) != 0)
      error_ = error.text;
  }
  ~OpenedLlama() { close(); }
  OpenedLlama(const OpenedLlama&) = delete;

  void close() {
    if (model_ != nullptr) the_engine().model_close(model_);
    model_ = nullptr;
  }
  // The logits, or none and error().
  std::vector<float> forward(const std::vector<int32_t>& ids, size_t position) {
    std::vector<float> logits(static_cast<size_t>(info_.vocab_size));
    bitctl_engine_error error;
    error_.clear();
    if (the_engine().model_forward(model_, ids.data(), ids.size(), position, logits.data(), &error) == 0)
      return logits;
    error_ = error.text;
    return {};
  }

  const std::string& error() const { return error_; }
  const bitctl_model_info& info() const { return info_; }
  int released() const { return released_; }

 private:
  TinyLlama llama_;
  bitctl_model* model_ = nullptr;
  bitctl_model_info info_{};
  std::string error_;
  int released_ = 0;
};

}  // namespace bitctl
