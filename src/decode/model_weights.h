// The files that hold a model's tensors, each tensor in one of them.
#pragma once

#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "safetensors/tensor_file.h"

namespace bitctl {

using ModelWeights = std::vector<std::shared_ptr<const TensorFile>>;

struct ModelTensor {
  const TensorInfo* info = nullptr;
  std::string_view bytes;
};

// By name, pointing into `weights`. Error::invalid where two parts have one of the same name.
Result<std::map<std::string_view, ModelTensor>> tensors_by_name(const ModelWeights& weights);

}  // namespace bitctl
