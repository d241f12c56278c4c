// Foreign memory as a libtorch tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <string_view>

#include "engine_api/engine_api.h"

namespace bitctl::engine {

// libtorch's type for a safetensors dtype; nothing where it has none (F6_E2M3, F6_E3M2).
std::optional<at::ScalarType> scalar_type_of(std::string_view dtype);

// `tensor "name"` and `F32 [2, 3]`, for messages.
std::string label(const bitctl_tensor& tensor);
std::string type_and_shape(const bitctl_tensor& tensor);

// A view; the memory stays the caller's. Refusal where the dtype is not known, or where dtype and shape do
// not ask for exactly `bytes`.
at::Tensor view_of(const bitctl_tensor& tensor);

}  // namespace bitctl::engine
