// What an export makes of each tensor and of config.json. Pure.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "base/strict_json.h"
#include "checkpoint/export.h"
#include "safetensors/header.h"

namespace bitctl {

enum class ExportAs { copy, cast, int8, ternary };

struct PlannedTensor {
  TensorInfo source;
  ExportAs as = ExportAs::copy;
  TensorInfo weight;  // in the exported file
  TensorInfo scale;   // "…_scale" of int8 and ternary
};

struct ExportPlan {
  std::vector<PlannedTensor> tensors;
  std::vector<TensorInfo> laid_out;  // of the exported file, in data order
};

// Of all tensors of the model, in that order. Error::invalid names the tensor or the reason why the model
// cannot be had in that dtype. `config` is the step's config.json; null where it has none.
Result<ExportPlan> plan_export(const std::vector<TensorInfo>& tensors, ExportDtype dtype, const Json& config);

// config.json as it belongs beside the exported file: dtype, and how the weights are quantized.
Json exported_config(Json config, ExportDtype dtype);

}  // namespace bitctl
