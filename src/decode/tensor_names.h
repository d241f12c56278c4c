// The names that tensors have in files, as transformers' text models call them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "model/config_spelling.h"

namespace bitctl {

// Empty where the tensor is no part of the language model.
std::optional<std::string> text_model_name(TensorNames names, std::string_view name);

}  // namespace bitctl
