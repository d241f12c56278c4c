// A Decoder of our own: no libtorch, the weights used where they are mapped.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "decode/decoder.h"
#include "decode/model_weights.h"
#include "kernels/attention_rows.h"
#include "model/model_config.h"

namespace bitctl {

// "float32", "bf16", "int8"; nothing where it is none of them.
std::optional<KvType> kv_type(std::string_view name);

struct NativeDecoderOptions {
  int threads = 0;           // 0: as many as the machine gives this process
  int64_t max_context = 0;   // positions; 0: the model's own limit
  std::optional<KvType> kv;  // not given: bf16 for bf16 weights, else float32
};

// The decoder keeps `weights` and computes on their memory, in float32. Error::invalid names what is not
// implemented or does not fit. Blocks for as long as a few page faults take; float latents that have to be
// quantized and GPT-2's transposed matrices are read whole.
Result<std::unique_ptr<Decoder>> open_native_decoder(ModelConfig config, ModelWeights weights,
                                                     const NativeDecoderOptions& options = {});

}  // namespace bitctl
