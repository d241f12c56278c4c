#include "decode/tensor_names.h"

#include <array>
#include <cstring>
#include <utility>

namespace bitctl {
namespace {

std::string joined(std::string_view first, std::string_view second) {
  return std::string(first).append(second);
}

std::optional<std::string> of_multimodal(std::string_view name) {
  for (const std::string_view other : {"vision_tower.", "multi_modal_projector."})
    if (name.starts_with(other) || name.starts_with(joined("model.", other))) return std::nullopt;
  if (name.starts_with("language_model.")) return std::string(name.substr(strlen("language_model.")));
  constexpr std::string_view kInside = "model.language_model.";
  if (name.starts_with(kInside)) return joined("model.", name.substr(kInside.size()));
  return std::string(name);
}

// Its trainer writes a layer's norms with the name of the last one in the middle.
std::string of_bit_llama(std::string_view name) {
  if (name == "embed.weight") return "model.embed_tokens.weight";
  if (name == "norm_f.weight") return "model.norm.weight";
  std::string known = name.starts_with("layers.") ? joined("model.", name) : std::string(name);
  constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kEndings{
      {{".norm1.weight", ".input_layernorm.weight"},
       {".norm1.model.norm.weight", ".input_layernorm.weight"},
       {".norm2.weight", ".post_attention_layernorm.weight"},
       {".norm2.model.norm.weight", ".post_attention_layernorm.weight"}}};
  for (const auto& [own, theirs] : kEndings)
    if (known.ends_with(own)) return joined(known.substr(0, known.size() - own.size()), theirs);
  return known;
}

}  // namespace

std::optional<std::string> text_model_name(TensorNames names, std::string_view name) {
  switch (names) {
    case TensorNames::multimodal:
      return of_multimodal(name);
    case TensorNames::bit_llama:
      return of_bit_llama(name);
    case TensorNames::text_model:
      break;
  }
  return std::string(name);
}

}  // namespace bitctl
