#include "decode/transformers_decoder.h"

#include <fmt/format.h>

namespace bitctl {
namespace {

class TransformersDecoder : public Decoder {
 public:
  TransformersDecoder(std::unique_ptr<EngineProcess> engine, DecoderInfo info)
      : engine_(std::move(engine)), info_(std::move(info)) {}

  const DecoderInfo& info() const override { return info_; }
  bool is_lost() const override { return !engine_->running(); }

  Status forward(std::span<const int32_t> ids, size_t position, std::span<float> logits) override {
    if (logits.size() != static_cast<size_t>(info_.vocab_size))
      return fail(ErrorKind::invalid,
                  fmt::format("room for {} logits, the vocabulary has {}", logits.size(), info_.vocab_size));
    const Json request{{"op", "forward"}, {"ids", ids}, {"position", position}};
    const auto reply = engine_->ask(request, {reinterpret_cast<char*>(logits.data()), logits.size_bytes()});
    if (!reply) return tl::unexpected(reply.error());
    return {};
  }

 private:
  std::unique_ptr<EngineProcess> engine_;
  const DecoderInfo info_;
};

}  // namespace

Result<std::unique_ptr<Decoder>> open_transformers_decoder(std::unique_ptr<EngineProcess> engine,
                                                           const TransformersOptions& options,
                                                           const EngineProcess::GoOn& go_on) {
  const Json request{{"op", "load"},
                     {"mmap", options.map},
                     {"device", options.device},
                     {"max_context", options.max_context}};
  const auto reply = engine->ask(request, {}, go_on);
  if (!reply) return tl::unexpected(reply.error());
  const auto size = [&](const char* key) {
    return static_cast<int64_t>(get_unsigned(*reply, key).value_or(0));
  };
  DecoderInfo info{"transformers",     get_text(*reply, "device"), get_text(*reply, "dtype"),
                   size("vocab_size"), size("max_context"),        options.remark};
  if (info.vocab_size == 0 || info.max_context == 0)
    return fail(ErrorKind::io, "the engine's reply does not describe a model: " + dump_line(*reply));
  return std::make_unique<TransformersDecoder>(std::move(engine), std::move(info));
}

}  // namespace bitctl
