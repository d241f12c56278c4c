// config.json of a model that anybody may have written.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "model/model_config.h"

using namespace bitctl;

namespace {

void check(bool holds) {
  if (!holds) std::abort();
}

void check_rope(const RopeConfig& rope, const ModelConfig& config) {
  const int64_t rotated = rotated_dimensions(rope, config.head_dim);
  check(rotated >= 0 && rotated <= config.head_dim && rotated % 2 == 0);
  if (rotated > 4096) return;  // only a fuzzer has such heads
  for (const bool is_long : {false, true})
    check(rope_frequencies(rope, config.head_dim, is_long).size() == static_cast<size_t>(rotated / 2));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parsed = parse_model_config({reinterpret_cast<const char*>(data), size});
  if (!parsed) return 0;
  // What is accepted can be computed with.
  const ModelConfig& config = *parsed;
  for (const int64_t each : {config.vocab_size, config.hidden_size, config.intermediate_size, config.heads,
                             config.kv_heads, config.head_dim, config.max_position_embeddings})
    check(each > 0 && each <= INT32_MAX);
  check(config.heads % config.kv_heads == 0 && config.head_dim % 2 == 0);
  check(std::isfinite(config.norm_eps) && std::isfinite(config.attention_scale));
  check(config.attention_softcap >= 0 && config.logit_softcap >= 0);
  check(!config.layers.empty());
  for (const LayerConfig& layer : config.layers) check(layer.window >= 0);
  if (!config.gpt2_blocks) check_rope(config.rope, config);
  return 0;
}
