#include "checkpoint/export_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "base/visible_text.h"
#include "safetensors/element.h"

namespace bitctl {
namespace {

constexpr std::string_view kWeight = ".weight";
// Modules of these names are looked up or are the output's, no matrices to be quantized.
constexpr std::array kNotLinear{"embed", "wte", "wpe", "shared", "lm_head", "norm"};
// Their matrices are transposed (Conv1D), which no loader expects of an int8 weight.
constexpr std::array kTransposed{"gpt2", "openai-gpt", "gpt_bigcode"};

std::string target_of(ExportDtype dtype) {
  switch (dtype) {
    case ExportDtype::f32:
      return "F32";
    case ExportDtype::f16:
      return "F16";
    default:
      return "BF16";
  }
}

bool is_linear(const TensorInfo& tensor, const std::set<std::string>& left_alone) {
  if (tensor.shape.size() != 2 || !tensor.name.ends_with(kWeight) || !is_castable(tensor.dtype)) return false;
  const std::string module = tensor.name.substr(0, tensor.name.size() - kWeight.size());
  if (left_alone.contains(module)) return false;
  return std::none_of(kNotLinear.begin(), kNotLinear.end(),
                      [&](const char* part) { return module.find(part) != std::string::npos; });
}

const Json* quantization_of(const Json& config) {
  const auto found = config.find("quantization_config");
  return found != config.end() && found->is_object() ? &*found : nullptr;
}

// Why the model cannot be had in that dtype; empty where it can.
std::string refusal(ExportDtype dtype, const Json& config) {
  if (!config.is_object())
    return "the step has no config.json, which would say how its weights are quantized";
  const Json* quantization = quantization_of(config);
  const std::string model_type = get_text(config, "model_type");
  if (dtype == ExportDtype::ternary) {
    if (model_type == "bitnet" || (quantization && get_text(*quantization, "quant_method") == "bitnet"))
      return {};
    return fmt::format(
        "model_type \"{}\" is not BitNet's: a model that was not trained with ternary weights is not worth "
        "anything with them",
        visible_text(model_type));
  }
  if (quantization != nullptr)
    return "its weights are quantized already (quantization_config in config.json)";
  if (std::find(kTransposed.begin(), kTransposed.end(), model_type) != kTransposed.end())
    return fmt::format("the matrices of model_type \"{}\" are transposed, and no loader of int8 expects that",
                       model_type);
  return {};
}

PlannedTensor planned(const TensorInfo& tensor, ExportAs as, std::string dtype, std::vector<int64_t> shape,
                      TensorInfo scale = {}) {
  return {tensor, as, {tensor.name, std::move(dtype), std::move(shape)}, std::move(scale)};
}

}  // namespace

Result<ExportPlan> plan_export(const std::vector<TensorInfo>& tensors, ExportDtype dtype,
                               const Json& config) {
  const bool quantize = dtype == ExportDtype::int8 || dtype == ExportDtype::ternary;
  if (quantize)
    if (const std::string why = refusal(dtype, config); !why.empty()) return fail(ErrorKind::invalid, why);
  std::set<std::string> left_alone;
  if (const Json* known = config.is_object() ? quantization_of(config) : nullptr)
    if (const auto names = known->find("modules_to_not_convert"); names != known->end() && names->is_array())
      for (const Json& name : *names)
        if (name.is_string()) left_alone.insert(name.get<std::string>());

  ExportPlan plan;
  const std::string target = target_of(dtype);
  bool any = false;
  for (const TensorInfo& tensor : tensors) {
    if (quantize && is_linear(tensor, left_alone)) {
      any = true;
      const int64_t rows = tensor.shape[0];
      if (dtype == ExportDtype::int8) {
        plan.tensors.push_back(
            planned(tensor, ExportAs::int8, "I8", tensor.shape, {tensor.name + "_scale", "F32", {rows, 1}}));
      } else {
        if (rows % 4 != 0)
          return fail(ErrorKind::invalid, fmt::format("tensor {} has {} rows, and BitNet packs four into one",
                                                      visible_text(tensor.name), rows));
        plan.tensors.push_back(planned(tensor, ExportAs::ternary, "U8", {rows / 4, tensor.shape[1]},
                                       {tensor.name + "_scale", "BF16", {1}}));
      }
    } else if (dtype != ExportDtype::as_saved && is_castable(tensor.dtype) && tensor.dtype != target) {
      plan.tensors.push_back(planned(tensor, ExportAs::cast, target, tensor.shape));
    } else {
      plan.tensors.push_back(planned(tensor, ExportAs::copy, tensor.dtype, tensor.shape));
    }
  }
  if (quantize && !any)
    return fail(ErrorKind::invalid, "it has no matrix named ….weight that could be quantized");

  for (const PlannedTensor& tensor : plan.tensors) {
    plan.laid_out.push_back(tensor.weight);
    if (!tensor.scale.name.empty()) plan.laid_out.push_back(tensor.scale);
  }
  if (auto laid = lay_out(plan.laid_out); !laid) return forward(std::move(laid));
  std::map<std::string, const TensorInfo*> placed;
  for (const TensorInfo& tensor : plan.laid_out)
    if (!placed.emplace(tensor.name, &tensor).second)
      return fail(ErrorKind::invalid, fmt::format("two tensors named {}", visible_text(tensor.name)));
  for (PlannedTensor& tensor : plan.tensors) {
    tensor.weight = *placed.at(tensor.weight.name);
    if (!tensor.scale.name.empty()) tensor.scale = *placed.at(tensor.scale.name);
  }
  return plan;
}

Json exported_config(Json config, ExportDtype dtype) {
  if (dtype == ExportDtype::as_saved || !config.is_object()) return config;
  const char* name = dtype == ExportDtype::f32   ? "float32"
                     : dtype == ExportDtype::f16 ? "float16"
                                                 : "bfloat16";
  const bool old_key = config.contains("torch_dtype");
  if (old_key) config["torch_dtype"] = name;
  if (!old_key || config.contains("dtype")) config["dtype"] = name;
  if (dtype == ExportDtype::int8)
    config["quantization_config"] = {{"quant_method", "compressed-tensors"},
                                     {"format", "int-quantized"},
                                     {"quantization_status", "compressed"},
                                     {"config_groups",
                                      {{"group_0",
                                        {{"targets", {"Linear"}},
                                         {"format", "int-quantized"},
                                         {"weights",
                                          {{"num_bits", 8},
                                           {"type", "int"},
                                           {"symmetric", true},
                                           {"strategy", "channel"},
                                           {"dynamic", false}}}}}}},
                                     {"ignore", {"lm_head"}}};
  if (dtype == ExportDtype::ternary) {
    Json& quantization = config["quantization_config"];
    if (!quantization.is_object()) quantization = Json::object();
    quantization["quant_method"] = "bitnet";
    quantization["linear_class"] = "autobitlinear";
    quantization["quantization_mode"] = "offline";
  }
  return config;
}

}  // namespace bitctl
