// Configurations that say the same as one of transformers' text models in other words: the text part of a
// Gemma 3 that also sees, and Bit-Llama's own. Pure.
#pragma once

#include <string>

#include "base/strict_json.h"

namespace bitctl {

// Whose names a model's tensors have.
enum class TensorNames {
  text_model,  // transformers' own for a causal language model
  multimodal,  // those with a prefix for the language model, and other parts beside it
  bit_llama,   // Bit-Llama's, mixed with transformers' or not
};

struct SpelledConfig {
  Json config;  // as transformers writes that of a text model
  TensorNames names = TensorNames::text_model;
  std::string error;  // what is wrong with the other spelling; empty: nothing
};

SpelledConfig spelled_for_text(Json config);

}  // namespace bitctl
