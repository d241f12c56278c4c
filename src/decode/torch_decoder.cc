#include "decode/torch_decoder.h"

#include <fmt/format.h>

#include <vector>

namespace bitctl {
namespace {

Result<std::vector<bitctl_tensor>> tensors_of(const ModelWeights& weights) {
  const auto by_name = tensors_by_name(weights);
  if (!by_name) return tl::unexpected(by_name.error());
  std::vector<bitctl_tensor> tensors;
  for (const auto& [name, tensor] : *by_name)
    tensors.push_back({tensor.info->name.c_str(), tensor.info->dtype.c_str(), tensor.info->shape.data(),
                       tensor.info->shape.size(), tensor.bytes.data(), tensor.bytes.size()});
  return tensors;
}

class TorchDecoder : public Decoder {
 public:
  TorchDecoder(const bitctl_engine* engine, bitctl_model* model, const bitctl_model_info& info)
      : engine_(engine),
        model_(model),
        info_{"torch", info.device, info.dtype, info.vocab_size, info.max_context} {}
  ~TorchDecoder() override { engine_->model_close(model_); }
  TorchDecoder(const TorchDecoder&) = delete;

  const DecoderInfo& info() const override { return info_; }

  Status forward(std::span<const int32_t> ids, size_t position, std::span<float> logits) override {
    if (logits.size() != static_cast<size_t>(info_.vocab_size))
      return fail(ErrorKind::invalid,
                  fmt::format("room for {} logits, the vocabulary has {}", logits.size(), info_.vocab_size));
    bitctl_engine_error error;
    if (engine_->model_forward(model_, ids.data(), ids.size(), position, logits.data(), &error) != 0)
      return fail(ErrorKind::invalid, error.text);
    return {};
  }

 private:
  const bitctl_engine* engine_;
  bitctl_model* model_;
  DecoderInfo info_;
};

}  // namespace

Result<std::unique_ptr<Decoder>> open_torch_decoder(const bitctl_engine* engine,
                                                    const std::string& config_json, ModelWeights weights,
                                                    const TorchDecoderOptions& options) {
  const auto tensors = tensors_of(weights);
  if (!tensors) return tl::unexpected(tensors.error());
  const bitctl_model_options model_options{
      .threads = options.threads,
      .max_context = options.max_context,
      .device = options.device.c_str(),
      .owner =
          new ModelWeights(std::move(weights)),  // the engine's from here on, also if it refuses the model
      .release = [](void* owner) { delete static_cast<ModelWeights*>(owner); },
  };
  bitctl_model* model = nullptr;
  bitctl_model_info info{};
  bitctl_engine_error error;
  if (engine->model_open(config_json.c_str(), tensors->data(), tensors->size(), &model_options, &model, &info,
                         &error) != 0)
    return fail(ErrorKind::invalid, error.text);
  return std::make_unique<TorchDecoder>(engine, model, info);
}

}  // namespace bitctl
