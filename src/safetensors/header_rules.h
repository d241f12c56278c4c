// The rules that reader and writer share. Each returns the first one broken, as Error::damaged.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "safetensors/header.h"

namespace bitctl::header_rules {

constexpr size_t kMaxName = 4096;
constexpr size_t kMaxRank = 64;
constexpr std::string_view kMetadataKey = "__metadata__";

// `tensor "name"`, fit for a message.
std::string label(std::string_view name);

Status check_name(std::string_view name, Strictness strictness);

// begin <= end, and exactly the bytes that dtype and shape ask for.
Status check_extent(const TensorInfo& tensor);

// `tensors` in data order: they tile [0, data_bytes).
Status check_layout(const std::vector<TensorInfo>& tensors, uint64_t data_bytes);

// The place of a dtype in Hugging Face's enum, by which the files are laid out; -1 where it is not known.
int dtype_rank(std::string_view dtype);

}  // namespace bitctl::header_rules
