// The safetensors header, read and written strictly: what our writer would not write our reader refuses, each
// damage with its own message. Layout of a file: u64 little-endian N, N bytes of JSON padded with spaces, the
// tensors' bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace bitctl {

struct TensorInfo {
  std::string name;
  std::string dtype;  // "F32", "BF16", "I64", …
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // offsets into the data, end exclusive
  uint64_t end = 0;

  uint64_t bytes() const { return end - begin; }
  bool operator==(const TensorInfo&) const = default;
};

struct TensorHeader {
  std::vector<TensorInfo> tensors;  // in data order
  std::vector<std::pair<std::string, std::string>> metadata;
  uint64_t header_bytes = 0;  // 8 + N: where the data starts
  uint64_t data_bytes = 0;
  std::vector<size_t> by_name;  // indices of the tensors, sorted by name; parse_header fills it for find()

  const TensorInfo* find(std::string_view name) const;     // null where there is none
  std::string metadata_value(std::string_view key) const;  // empty where it is absent
};

constexpr uint64_t kMaxHeaderJson = 100'000'000;

// What compat adds to strict: white space around the JSON other than trailing spaces, `"__metadata__": null`,
// names that are empty or longer than 4 KiB. Everything else that Hugging Face's reader lets pass (unknown or
// duplicate fields, more than 64 dimensions, sizes of 2^63 beside a zero) is refused by both.
enum class Strictness {
  strict,  // what checkpoint files of ours must be
  compat,  // foreign files
};

// Whether shape × dtype must be the tensor's bytes: always, unless somebody else looks at exactly that.
enum class Extents { check, leave };

// Bits of one element; 0 where the dtype is not known.
unsigned dtype_bits(std::string_view dtype);

// Bytes of a tensor's elements, by checked arithmetic. Error::damaged says which rule is broken.
Result<uint64_t> tensor_bytes(std::string_view dtype, const std::vector<int64_t>& shape);

// How many bytes the whole header takes (8 + N), from a file's first 8 bytes. Error::damaged with the reason.
Result<uint64_t> header_size(std::string_view first_bytes, uint64_t file_bytes);

// `head` holds at least header_size() bytes. Checks JSON, keys, types, arithmetic and layout: the tensors
// tile the data without hole or overlap, up to the file's last byte. Error::damaged with the reason, names
// made visible.
Result<TensorHeader> parse_header(std::string_view head, uint64_t file_bytes,
                                  Strictness strictness = Strictness::strict,
                                  Extents extents = Extents::check);

// Sorts the tensors as Hugging Face's writer does (widest dtype first, then by name), which aligns each for
// its dtype, and gives them their offsets. Error::invalid where a size cannot be told.
Status lay_out(std::vector<TensorInfo>& tensors);

// The 8 + N bytes for these tensors (already laid out), padded with spaces to `region_bytes` (0: to a
// multiple of 8, byte for byte what Hugging Face's writer produces). Error::invalid where a strict reader
// would refuse it, or where it does not fit.
Result<std::string> build_header(const std::vector<TensorInfo>& tensors,
                                 const std::vector<std::pair<std::string, std::string>>& metadata,
                                 uint64_t region_bytes = 0);

}  // namespace bitctl
