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

Result<TensorFindings> check_with_engine(const bitctl_engine* engine, const std::vector<FileImage>& files) {
  TensorFindings findings;
  if (engine == nullptr) {
    findings.checked_by = "none";
    for (const FileImage& file : files)
      if (auto status = check_extents(file); !status) return forward(std::move(status));
    return findings;
  }
  findings.checked_by = fmt::format("torch {}", engine->torch_version);
  for (const FileImage& file : files) {
    std::vector<bitctl_tensor> tensors;
    for (const TensorInfo& t : file.table.tensors)
      tensors.push_back(
          {t.name.c_str(), t.dtype.c_str(), t.shape.data(), t.shape.size(), file.data + t.begin, t.bytes()});
    std::vector<uint8_t> non_finite(tensors.size(), 0);
    bitctl_engine_error error{};
    if (engine->check_tensors(tensors.data(), tensors.size(), non_finite.data(), &error) != 0)
      return fail(ErrorKind::invalid, file.name + ": " + error.text);
    for (size_t i = 0; i < tensors.size(); ++i)
      if (non_finite[i] != 0) findings.non_finite.push_back(fmt::format("{}:{}", file.name, tensors[i].name));
  }
  return findings;
}

}  // namespace bitctl
