#include "decode/torch_decoder.h"

#include <fmt/format.h>

#include <set>
#include <vector>

#include "base/visible_text.h"

namespace bitctl {
namespace {

Result<std::vector<bitctl_tensor>> tensors_of(const ModelWeights& weights) {
  std::vector<bitctl_tensor> tensors;
  std::set<std::string_view> names;
  for (const auto& file : weights) {
    for (const auto& info : file->header().tensors) {
      if (!names.insert(info.name).second)
        return fail(ErrorKind::invalid, fmt::format("{}: tensor {} is in another part, too", file->path(),
                                                    visible_text(info.name)));
      const std::string_view bytes = file->bytes(info);
      tensors.push_back({info.name.c_str(), info.dtype.c_str(), info.shape.data(), info.shape.size(),
                         bytes.data(), bytes.size()});
    }
  }
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
