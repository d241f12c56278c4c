// The safetensors header of a file that anybody may have written.
#include <cstdint>
#include <cstdlib>

#include "safetensors/header.h"

using namespace bitctl;

namespace {

void check(bool holds) {
  if (!holds) std::abort();
}

void parse(std::string_view bytes, uint64_t file_bytes, Strictness strictness, Extents extents) {
  const auto header = parse_header(bytes, file_bytes, strictness, extents);
  if (!header) return;
  // What is accepted lies inside the file, without a hole or an overlap, and is found by its name.
  check(header->header_bytes + header->data_bytes == file_bytes);
  uint64_t end = 0;
  for (const TensorInfo& tensor : header->tensors) {
    check(tensor.begin == end && tensor.end >= tensor.begin);
    end = tensor.end;
    if (extents == Extents::check) check(*tensor_bytes(tensor.dtype, tensor.shape) == tensor.bytes());
    check(header->find(tensor.name) != nullptr);
  }
  check(end == header->data_bytes);
}

}  // namespace

// The first two bytes: how long the file's data is.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const uint64_t data_bytes = static_cast<uint64_t>(data[0]) << 8 | data[1];
  const std::string_view file(reinterpret_cast<const char*>(data) + 2, size - 2);
  const auto wanted = header_size(file, file.size() + data_bytes);
  if (!wanted || *wanted > file.size()) return 0;
  for (const Strictness strictness : {Strictness::strict, Strictness::compat})
    for (const Extents extents : {Extents::check, Extents::leave})
      parse(file.substr(0, *wanted), *wanted + data_bytes, strictness, extents);
  return 0;
}
