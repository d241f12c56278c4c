#include "writer/tensor_check.h"

#include <fmt/format.h>

namespace bitctl {
namespace {

Status check_extents(const FileImage& file) {
  for (const TensorInfo& tensor : file.table.tensors) {
    const auto bytes = tensor_bytes(tensor.dtype, tensor.shape);
    if (!bytes)
      return fail(ErrorKind::invalid,
                  fmt::format("{}: tensor {}: {}", file.name, tensor.name, bytes.error().message));
    if (*bytes != tensor.bytes())
      return fail(ErrorKind::invalid, fmt::format("{}: tensor {}: its shape takes {} bytes, its offsets {}",
                                                  file.name, tensor.name, *bytes, tensor.bytes()));
  }
  return {};
}

}  // namespace

Result<std::string> check_with_engine(const bitctl_engine* engine, const std::vector<FileImage>& files) {
  if (engine == nullptr) {
    for (const FileImage& file : files)
      if (auto status = check_extents(file); !status) return forward(std::move(status));
    return "none";
  }
  for (const FileImage& file : files) {
    std::vector<bitctl_tensor> tensors;
    for (const TensorInfo& t : file.table.tensors)
      tensors.push_back(
          {t.name.c_str(), t.dtype.c_str(), t.shape.data(), t.shape.size(), file.data + t.begin, t.bytes()});
    bitctl_engine_error error{};
    if (engine->check_tensors(tensors.data(), tensors.size(), &error) != 0)
      return fail(ErrorKind::invalid, file.name + ": " + error.text);
  }
  return fmt::format("torch {}", engine->torch_version);
}

}  // namespace bitctl
