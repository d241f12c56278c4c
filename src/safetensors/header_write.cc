#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/strict_json.h"
#include "base/visible_text.h"
#include "safetensors/header.h"
#include "safetensors/header_rules.h"

namespace bitctl {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

using header_rules::label;

tl::unexpected<Error> invalid(std::string reason) { return fail(ErrorKind::invalid, std::move(reason)); }

bool is_utf8(std::string_view text) {
  for (size_t at = 0, length = 0; at < text.size(); at += length) {
    char32_t code_point = 0;
    if ((length = decode_utf8(text, at, code_point)) == 0) return false;
  }
  return true;
}

Status check_text(std::string_view what, std::string_view text) {
  if (is_utf8(text)) return {};
  return invalid(fmt::format("{} \"{}\" is not UTF-8", what, shortened(visible_text(text), 100)));
}

// Sorts the names and returns one that occurs twice.
const std::string_view* duplicate_in(std::vector<std::string_view>& names) {
  std::sort(names.begin(), names.end());
  const auto at = std::adjacent_find(names.begin(), names.end());
  return at == names.end() ? nullptr : &*at;
}

Status check_writable(const std::vector<TensorInfo>& tensors,
                      const std::vector<std::pair<std::string, std::string>>& metadata) {
  std::vector<std::string_view> names;
  for (const auto& tensor : tensors) {
    if (tensor.name == header_rules::kMetadataKey) return invalid("a tensor must not be called __metadata__");
    if (auto text = check_text("tensor name", tensor.name); !text) return text;
    if (auto name = header_rules::check_name(tensor.name, Strictness::strict); !name)
      return invalid(name.error().message);
    if (auto extent = header_rules::check_extent(tensor); !extent) return invalid(extent.error().message);
    names.push_back(tensor.name);
  }
  if (const auto* twice = duplicate_in(names)) return invalid(label(*twice) + " is there twice");
  if (auto tiled = header_rules::check_layout(tensors, tensors.empty() ? 0 : tensors.back().end); !tiled)
    return invalid(tiled.error().message);
  names.clear();
  for (const auto& [key, value] : metadata) {
    if (auto text = check_text("metadata key", key); !text) return text;
    if (auto text = check_text("metadata value", value); !text) return text;
    names.push_back(key);
  }
  if (const auto* twice = duplicate_in(names))
    return invalid(fmt::format("metadata key \"{}\" is there twice", shortened(visible_text(*twice), 100)));
  return {};
}

std::string json_text(const std::vector<TensorInfo>& tensors,
                      const std::vector<std::pair<std::string, std::string>>& metadata) {
  std::string json = "{";
  const auto separate = [&](const char* separator) {
    if (json.back() != '{') json += separator;
  };
  if (!metadata.empty()) {
    json += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      separate(",");
      json += dump_line(Json(key)) + ":" + dump_line(Json(value));
    }
    json += "}";
  }
  for (const auto& tensor : tensors) {
    separate(",");
    fmt::format_to(std::back_inserter(json), R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                   dump_line(Json(tensor.name)), tensor.dtype, fmt::join(tensor.shape, ","), tensor.begin,
                   tensor.end);
  }
  return json + "}";
}

}  // namespace

Status lay_out(std::vector<TensorInfo>& tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    const int left = header_rules::dtype_rank(a.dtype), right = header_rules::dtype_rank(b.dtype);
    return left != right ? left > right : a.name < b.name;
  });
  uint64_t at = 0;
  for (auto& tensor : tensors) {
    const auto bytes = tensor_bytes(tensor.dtype, tensor.shape);
    if (!bytes) return invalid(label(tensor.name) + ": " + bytes.error().message);
    tensor.begin = at;
    if (__builtin_add_overflow(at, *bytes, &at)) return invalid("the tensors have more than 2^64 bytes");
    tensor.end = at;
  }
  return {};
}

Result<std::string> build_header(const std::vector<TensorInfo>& tensors,
                                 const std::vector<std::pair<std::string, std::string>>& metadata,
                                 uint64_t region_bytes) {
  if (auto checked = check_writable(tensors, metadata); !checked) return forward(std::move(checked));
  std::string json = json_text(tensors, metadata);
  const uint64_t total = region_bytes != 0 ? region_bytes : 8 + (json.size() + 7) / 8 * 8;
  if (json.size() + 8 > total)
    return invalid(fmt::format("a header of {} bytes does not fit into {}", json.size() + 8, total));
  const uint64_t n = total - 8;
  if (n > kMaxHeaderJson)
    return invalid(fmt::format("a header of {} bytes, more than {}", n, kMaxHeaderJson));
  std::string header(8, '\0');
  std::memcpy(header.data(), &n, 8);
  header += json;
  header.resize(total, ' ');
  return header;
}

}  // namespace bitctl
