#include "safetensors/header.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/strict_json.h"
#include "base/visible_text.h"
#include "safetensors/header_rules.h"

namespace bitctl {
namespace {

using header_rules::label;

tl::unexpected<Error> damaged(std::string reason) { return fail(ErrorKind::damaged, std::move(reason)); }

uint64_t little_endian(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = 8; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

// What JSON itself does not forbid around the object.
Status check_frame(std::string_view text, Strictness strictness) {
  if (text.starts_with("\xef\xbb\xbf")) return damaged("the header starts with a byte order mark");
  if (strictness == Strictness::compat) return {};
  if (text.front() != '{')
    return damaged(fmt::format("the header starts with byte 0x{:02x} instead of {{",
                               static_cast<unsigned char>(text.front())));
  const char last = text[text.find_last_not_of(' ')];
  if (last == '\t' || last == '\n' || last == '\r')
    return damaged(fmt::format("the header is padded with byte 0x{:02x} instead of spaces", last));
  return {};
}

// Only plain digits: -0, fractions and exponents reach us as other JSON types.
Result<uint64_t> unsigned_of(const Json& number) {
  if (!number.is_number_unsigned())
    return damaged(shortened(dump_line(number), 40) + " is no unsigned integer");
  return number.get<uint64_t>();
}

Result<std::vector<int64_t>> read_shape(const Json& json) {
  if (!json.is_array()) return damaged("shape is no array");
  if (json.size() > header_rules::kMaxRank)
    return damaged(fmt::format("{} dimensions, more than 64", json.size()));
  std::vector<int64_t> shape;
  shape.reserve(json.size());
  for (const auto& item : json) {
    const auto size = unsigned_of(item);
    if (!size) return damaged("in its shape, " + size.error().message);
    if (*size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      return damaged(fmt::format("in its shape, {} is larger than 2^63-1", *size));
    shape.push_back(static_cast<int64_t>(*size));
  }
  return shape;
}

Status read_offsets(const Json& json, TensorInfo& tensor) {
  if (!json.is_array() || json.size() != 2) return damaged("data_offsets is no array of two integers");
  const auto begin = unsigned_of(json[0]);
  if (!begin) return damaged("in its data_offsets, " + begin.error().message);
  const auto end = unsigned_of(json[1]);
  if (!end) return damaged("in its data_offsets, " + end.error().message);
  tensor.begin = *begin;
  tensor.end = *end;
  return {};
}

Status read_fields(const Json& json, TensorInfo& tensor) {
  if (!json.is_object()) return damaged("its description is no object");
  bool has_dtype = false, has_shape = false, has_offsets = false;
  for (const auto& [key, value] : json.items()) {
    if (key == "dtype") {
      if (!value.is_string()) return damaged("dtype is no string");
      tensor.dtype = value.get_ref<const std::string&>();
      has_dtype = true;
    } else if (key == "shape") {
      auto shape = read_shape(value);
      if (!shape) return forward(std::move(shape));
      tensor.shape = std::move(*shape);
      has_shape = true;
    } else if (key == "data_offsets") {
      if (auto read = read_offsets(value, tensor); !read) return read;
      has_offsets = true;
    } else {
      return damaged(fmt::format("unknown field \"{}\"", shortened(visible_text(key), 40)));
    }
  }
  if (!has_dtype) return damaged("no dtype");
  if (!has_shape) return damaged("no shape");
  if (!has_offsets) return damaged("no data_offsets");
  return {};
}

Status read_metadata(const Json& json, Strictness strictness, TensorHeader& header) {
  if (json.is_null() && strictness == Strictness::compat) return {};
  if (!json.is_object()) return damaged("__metadata__ is no object");
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string())
      return damaged(
          fmt::format("__metadata__: the value of \"{}\" is no string", shortened(visible_text(key), 100)));
    header.metadata.emplace_back(key, value.get<std::string>());
  }
  return {};
}

Status read_entries(const Json& root, Strictness strictness, Extents extents, TensorHeader& header) {
  header.tensors.reserve(root.size());
  for (const auto& [key, value] : root.items()) {
    if (key == header_rules::kMetadataKey) {
      if (auto read = read_metadata(value, strictness, header); !read) return read;
      continue;
    }
    if (auto checked = header_rules::check_name(key, strictness); !checked) return checked;
    TensorInfo tensor{key};
    if (auto read = read_fields(value, tensor); !read)
      return damaged(label(key) + ": " + read.error().message);
    if (extents == Extents::check)
      if (auto checked = header_rules::check_extent(tensor); !checked) return checked;
    header.tensors.push_back(std::move(tensor));
  }
  return {};
}

}  // namespace

const TensorInfo* TensorHeader::find(std::string_view name) const {
  const auto at =
      std::lower_bound(by_name.begin(), by_name.end(), name,
                       [&](size_t i, std::string_view wanted) { return tensors[i].name < wanted; });
  return at != by_name.end() && tensors[*at].name == name ? &tensors[*at] : nullptr;
}

std::string TensorHeader::metadata_value(std::string_view key) const {
  for (const auto& [name, value] : metadata)
    if (name == key) return value;
  return {};
}

Result<uint64_t> header_size(std::string_view first_bytes, uint64_t file_bytes) {
  if (file_bytes < 8 || first_bytes.size() < 8)
    return damaged(fmt::format("{} bytes, too short for the length of a header", file_bytes));
  const uint64_t n = little_endian(first_bytes);
  if (n < 2) return damaged(fmt::format("a header of {} bytes holds no JSON object", n));
  if (n > kMaxHeaderJson) {
    const bool swapped = __builtin_bswap64(n) <= kMaxHeaderJson;
    return damaged(fmt::format("a header of {} bytes, more than {}: {}", n, kMaxHeaderJson,
                               swapped ? "its length is big-endian" : "this is no safetensors file"));
  }
  if (n > file_bytes - 8)
    return damaged(fmt::format("a header of {} bytes in a file of {}; is it truncated?", n, file_bytes));
  return 8 + n;
}

Result<TensorHeader> parse_header(std::string_view head, uint64_t file_bytes, Strictness strictness,
                                  Extents extents) {
  const auto size = header_size(head, file_bytes);
  if (!size) return tl::unexpected(size.error());
  if (head.size() < *size) return fail(ErrorKind::invalid, "parse_header: fewer bytes than the header has");
  const std::string_view text = head.substr(8, *size - 8);
  if (auto framed = check_frame(text, strictness); !framed) return forward(std::move(framed));

  // Root, tensor, shape: three levels are all there can be; a fourth lets a nested shape be called by name.
  const auto root = parse_strict_json(text, 4);
  if (!root)
    return damaged(fmt::format("header, byte {}: {}", 8 + root.error().byte,
                               shortened(visible_text(root.error().reason), 200)));
  if (!root->is_object()) return damaged("the header is no JSON object");

  TensorHeader header;
  header.header_bytes = *size;
  header.data_bytes = file_bytes - *size;
  if (auto read = read_entries(*root, strictness, extents, header); !read) return forward(std::move(read));
  // Stable, so that empty tensors at one offset keep the header's order.
  std::stable_sort(header.tensors.begin(), header.tensors.end(),
                   [](const TensorInfo& a, const TensorInfo& b) {
                     return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
                   });
  if (auto tiled = header_rules::check_layout(header.tensors, header.data_bytes); !tiled)
    return forward(std::move(tiled));

  header.by_name.resize(header.tensors.size());
  std::iota(header.by_name.begin(), header.by_name.end(), size_t{0});
  std::sort(header.by_name.begin(), header.by_name.end(),
            [&](size_t a, size_t b) { return header.tensors[a].name < header.tensors[b].name; });
  return header;
}

}  // namespace bitctl
