#include "engine/llama_config.h"

#include "engine/door.h"

namespace bitctl::engine {

ModelConfig parse_llama_config(std::string_view config_json) {
  using Type = RopeConfig::Type;
  const auto config = parse_model_config(config_json, "llama");
  if (!config) refuse(config.error().message);
  if (config->quantization != Quantization::none)
    refuse("config.json: quantization_config is not implemented by this engine");
  const Type type = config->rope.type;
  if (type != Type::plain && type != Type::linear && type != Type::llama3)
    refuse("config.json: rope_type is not implemented by this engine (known: default, linear, llama3)");
  if (config->activation != Activation::silu)
    refuse("config.json: hidden_act is not implemented by this engine (known: silu)");
  return *config;
}

}  // namespace bitctl::engine
