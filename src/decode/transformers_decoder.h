// A Decoder in a Python process of its own, by Hugging Face transformers: any architecture that it knows.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "decode/decoder.h"
#include "decode/engine_process.h"

namespace bitctl {

struct TransformersOptions {
  bool map = true;  // false: read the weights into memory
  std::string device = "auto";
  int64_t max_context = 0;  // positions; 0: the model's own limit
  std::string remark = {};  // DecoderInfo's
};

// `engine` is `python -m bitctl.transformers_engine`, started with config.json and the weights. The decoder
// computes in the dtype of the weights. Blocks for its imports, which take seconds, and for the load.
Result<std::unique_ptr<Decoder>> open_transformers_decoder(std::unique_ptr<EngineProcess> engine,
                                                           const TransformersOptions& options = {},
                                                           const EngineProcess::GoOn& go_on = nullptr);

}  // namespace bitctl
