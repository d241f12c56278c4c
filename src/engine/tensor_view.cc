#include "engine/tensor_view.h"

#include <ATen/ops/from_blob.h>

#include <array>
#include <utility>

#include "base/visible_text.h"
#include "engine/door.h"

namespace bitctl::engine {
namespace {

constexpr std::array<std::pair<std::string_view, at::ScalarType>, 20> kTypes{{
    {"BOOL", at::kBool},
    {"U8", at::kByte},
    {"I8", at::kChar},
    {"I16", at::kShort},
    {"U16", at::kUInt16},
    {"I32", at::kInt},
    {"U32", at::kUInt32},
    {"I64", at::kLong},
    {"U64", at::kUInt64},
    {"F16", at::kHalf},
    {"BF16", at::kBFloat16},
    {"F32", at::kFloat},
    {"F64", at::kDouble},
    {"C64", at::kComplexFloat},
    {"F8_E5M2", at::kFloat8_e5m2},
    {"F8_E4M3", at::kFloat8_e4m3fn},
    {"F8_E8M0", at::kFloat8_e8m0fnu},
    {"F8_E5M2FNUZ", at::kFloat8_e5m2fnuz},
    {"F8_E4M3FNUZ", at::kFloat8_e4m3fnuz},
    {"F4", at::kFloat4_e2m1fn_x2},
}};

// safetensors counts 4-bit elements, libtorch pairs of them.
void pair_up(const bitctl_tensor& tensor, std::vector<int64_t>& shape) {
  if (shape.empty() || shape.back() % 2 != 0)
    refuse("torch: ", label(tensor), ": ", type_and_shape(tensor),
           " has an odd last dimension, F4 is stored in pairs");
  shape.back() /= 2;
}

}  // namespace

std::optional<at::ScalarType> scalar_type_of(std::string_view dtype) {
  for (const auto& [name, type] : kTypes)
    if (name == dtype) return type;
  return std::nullopt;
}

std::string label(const bitctl_tensor& tensor) {
  return c10::str("tensor \"", shortened(visible_text(tensor.name), 100), "\"");
}

std::string type_and_shape(const bitctl_tensor& tensor) {
  return c10::str(tensor.dtype, " ", at::IntArrayRef(tensor.shape, tensor.rank));
}

at::Tensor view_of(const bitctl_tensor& tensor) {
  const auto type = scalar_type_of(tensor.dtype);
  if (!type)
    refuse("torch: ", label(tensor), ": libtorch " BITCTL_TORCH_VERSION " has no dtype ",
           shortened(visible_text(tensor.dtype), 40));
  std::vector<int64_t> shape(tensor.shape, tensor.shape + tensor.rank);
  if (*type == at::kFloat4_e2m1fn_x2) pair_up(tensor, shape);
  at::Tensor view;
  try {
    view = at::from_blob(const_cast<void*>(tensor.data), shape, at::dtype(*type));
  } catch (const c10::Error& error) {
    refuse("torch: ", label(tensor), ": ", type_and_shape(tensor), ": ", reason_of(error));
  }
  if (view.nbytes() != tensor.bytes)
    refuse("torch: ", label(tensor), ": ", type_and_shape(tensor), " takes ", view.nbytes(),
           " bytes, the file gives it ", tensor.bytes);
  return view;
}

}  // namespace bitctl::engine
