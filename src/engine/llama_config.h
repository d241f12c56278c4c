// What this module computes of what a config.json can say.
#pragma once

#include <string_view>

#include "model/model_config.h"

namespace bitctl::engine {

// Refusal names the field.
ModelConfig parse_llama_config(std::string_view config_json);

}  // namespace bitctl::engine
