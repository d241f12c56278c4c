#include "safetensors/header_rules.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <limits>

#include "base/visible_text.h"

namespace bitctl {
namespace {

struct Dtype {
  std::string_view name;
  unsigned bits;
};

constexpr std::array<Dtype, 22> kDtypes{
    {{"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
     {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
     {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
     {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}}};

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace

unsigned dtype_bits(std::string_view dtype) {
  const int rank = header_rules::dtype_rank(dtype);
  return rank < 0 ? 0 : kDtypes[static_cast<size_t>(rank)].bits;
}

Result<uint64_t> tensor_bytes(std::string_view dtype, const std::vector<int64_t>& shape) {
  const unsigned bits = dtype_bits(dtype);
  if (bits == 0)
    return fail(ErrorKind::damaged, fmt::format("unknown dtype \"{}\"", shortened(visible_text(dtype), 40)));
  if (shape.size() > header_rules::kMaxRank)
    return fail(ErrorKind::damaged, fmt::format("{} dimensions, more than 64", shape.size()));
  uint64_t count = 1;
  for (const int64_t size : shape) {
    if (size < 0)
      return fail(ErrorKind::damaged, fmt::format("negative size in shape {}", shape_text(shape)));
    if (__builtin_mul_overflow(count, static_cast<uint64_t>(size), &count))
      return fail(ErrorKind::damaged,
                  fmt::format("the product of shape {} overflows 64 bits", shape_text(shape)));
  }
  if (__builtin_mul_overflow(count, uint64_t{bits}, &count))
    return fail(ErrorKind::damaged, fmt::format("{} {} has more than 2^64 bits", dtype, shape_text(shape)));
  if (count % 8 != 0)
    return fail(ErrorKind::damaged, fmt::format("{} {} does not fill whole bytes", dtype, shape_text(shape)));
  return count / 8;
}

namespace header_rules {

int dtype_rank(std::string_view dtype) {
  for (size_t i = 0; i < kDtypes.size(); ++i)
    if (kDtypes[i].name == dtype) return static_cast<int>(i);
  return -1;
}

std::string label(std::string_view name) {
  return fmt::format("tensor \"{}\"", shortened(visible_text(name), 100));
}

Status check_name(std::string_view name, Strictness strictness) {
  if (name.find('\0') != std::string_view::npos)
    return fail(ErrorKind::damaged, label(name) + ": a NUL byte in its name");
  if (strictness == Strictness::compat) return {};
  if (name.empty()) return fail(ErrorKind::damaged, "a tensor with an empty name");
  if (name.size() > kMaxName)
    return fail(ErrorKind::damaged,
                fmt::format("{}: its name has {} bytes, more than {}", label(name), name.size(), kMaxName));
  return {};
}

Status check_extent(const TensorInfo& tensor) {
  const auto bytes = tensor_bytes(tensor.dtype, tensor.shape);
  if (!bytes) return fail(ErrorKind::damaged, label(tensor.name) + ": " + bytes.error().message);
  if (tensor.begin > tensor.end)
    return fail(ErrorKind::damaged, fmt::format("{}: its data_offsets run backwards, [{}, {}]",
                                                label(tensor.name), tensor.begin, tensor.end));
  if (tensor.bytes() != *bytes)
    return fail(ErrorKind::damaged,
                fmt::format("{}: {} {} takes {} bytes, its data_offsets give it {}", label(tensor.name),
                            tensor.dtype, shape_text(tensor.shape), *bytes, tensor.bytes()));
  return {};
}

Status check_layout(const std::vector<TensorInfo>& tensors, uint64_t data_bytes) {
  if (tensors.empty()) {
    if (data_bytes == 0) return {};
    return fail(ErrorKind::damaged, fmt::format("no tensors, but {} bytes of data", data_bytes));
  }
  const TensorInfo* previous = nullptr;
  for (const auto& tensor : tensors) {
    const uint64_t expected = previous ? previous->end : 0;
    if (tensor.begin > expected)
      return fail(ErrorKind::damaged, fmt::format("a hole of {} bytes in the data before {}",
                                                  tensor.begin - expected, label(tensor.name)));
    if (tensor.begin < expected) {
      const bool same = tensor.begin == previous->begin && tensor.end == previous->end;
      return fail(ErrorKind::damaged,
                  fmt::format("{} {} {}", label(tensor.name), same ? "has the same bytes as" : "overlaps",
                              label(previous->name)));
    }
    previous = &tensor;
  }
  const uint64_t end = previous->end;
  if (end > data_bytes)
    return fail(
        ErrorKind::damaged,
        fmt::format("truncated: the tensors end at byte {} of the data, the file at {}", end, data_bytes));
  if (end < data_bytes)
    return fail(ErrorKind::damaged, fmt::format("{} trailing bytes after the last tensor", data_bytes - end));
  return {};
}

}  // namespace header_rules
}  // namespace bitctl
