// A Decoder on the libtorch engine module.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "decode/decoder.h"
#include "decode/model_weights.h"
#include "engine_api/engine_api.h"

namespace bitctl {

struct TorchDecoderOptions {
  int threads = 0;          // 0: as many as the machine has
  int64_t max_context = 0;  // positions; 0: the model's own limit
  std::string device = "auto";
};

// `config_json` is the text of the model's config.json. The decoder keeps `weights` and computes on their
// memory. Error::invalid with the engine's own words. Blocks for as long as a few page faults take; the pages
// of the weights come in as they are used, or beforehand through TensorFile::populate.
Result<std::unique_ptr<Decoder>> open_torch_decoder(const bitctl_engine* engine,
                                                    const std::string& config_json, ModelWeights weights,
                                                    const TorchDecoderOptions& options = {});

}  // namespace bitctl
