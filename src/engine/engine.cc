// The table of functions behind the C ABI.
#include <algorithm>
#include <cstring>
#include <memory>

#include "engine/door.h"
#include "engine/llama.h"
#include "engine/tensor_view.h"

using bitctl::engine::Llama;

// Members are destroyed in reverse: the tensors go before the memory that they look into.
struct bitctl_model {
  std::unique_ptr<void, void (*)(void*)> owner;
  Llama llama;
};

namespace bitctl::engine {
namespace {

void copy_text(char* to, size_t size, std::string_view text) {
  const size_t length = std::min(text.size(), size - 1);
  std::memcpy(to, text.data(), length);
  to[length] = '\0';
}

const char* dtype_name(at::ScalarType type) {
  return type == at::kFloat ? "float32" : type == at::kBFloat16 ? "bfloat16" : "float16";
}

void check_device(const char* device) {
  const std::string_view name = device != nullptr ? device : "auto";
  if (name != "auto" && name != "cpu")
    refuse("device \"", name, "\" is not implemented: this engine computes on the CPU");
}

int check_tensors(const bitctl_tensor* tensors, size_t count, bitctl_engine_error* error) {
  return guarded(error, [&] {
    for (size_t i = 0; i < count; ++i) view_of(tensors[i]);
  });
}

int model_open(const char* config_json, const bitctl_tensor* tensors, size_t count,
               const bitctl_model_options* options, bitctl_model** model, bitctl_model_info* info,
               bitctl_engine_error* error) {
  const auto keep = [](void*) {};
  std::unique_ptr<void, void (*)(void*)> owner(options->owner,
                                               options->release != nullptr ? options->release : keep);
  return guarded(error, [&] {
    check_device(options->device);
    const ModelConfig config = parse_llama_config(config_json);
    if (options->max_context < 0 || options->max_context > config.max_position_embeddings)
      refuse("max_context ", options->max_context, " is not within the model's ",
             config.max_position_embeddings);
    std::unique_ptr<bitctl_model> opened(new bitctl_model{
        std::move(owner),
        Llama(config, collect_weights(config, tensors, count), options->max_context, options->threads)});
    info->vocab_size = config.vocab_size;
    info->max_context = opened->llama.max_context();
    copy_text(info->device, sizeof info->device, "cpu");
    copy_text(info->dtype, sizeof info->dtype, dtype_name(opened->llama.dtype()));
    *model = opened.release();
  });
}

int model_forward(bitctl_model* model, const int32_t* ids, size_t count, size_t position, float* logits,
                  bitctl_engine_error* error) {
  return guarded(error, [&] {
    model->llama.forward(ids, static_cast<int64_t>(count), static_cast<int64_t>(position), logits);
  });
}

void model_close(bitctl_model* model) { delete model; }

constexpr bitctl_engine kEngine{
    .abi = BITCTL_ENGINE_ABI,
    .bytes = sizeof(bitctl_engine),
    .torch_version = BITCTL_TORCH_VERSION,
    .check_tensors = check_tensors,
    .model_open = model_open,
    .model_forward = model_forward,
    .model_close = model_close,
};

}  // namespace
}  // namespace bitctl::engine

extern "C" __attribute__((visibility("default"))) const bitctl_engine* bitctl_engine_entry(uint32_t abi) {
  return abi == BITCTL_ENGINE_ABI ? &bitctl::engine::kEngine : nullptr;
}
