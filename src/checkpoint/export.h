// A step's model as a folder of its own, in another dtype where that is asked for, that depends on no run any
// more. docs/export.md has the formats.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/file_ops.h"
#include "base/result.h"
#include "checkpoint/catalog.h"

namespace bitctl {

enum class ExportDtype { as_saved, bf16, f16, f32, int8, ternary };

struct ExportOptions {
  ExportDtype dtype = ExportDtype::as_saved;
  bool replace = false;  // a folder that stands there, if it is an export itself
  FileOps* ops = nullptr;
};

struct Exported {
  std::string path;
  uint64_t bytes = 0;       // of model.safetensors
  size_t tensors = 0;       // as saved
  size_t cast = 0;          // of these, written in another dtype
  size_t quantized = 0;     // and these as int8 or ternary
  uint64_t overflowed = 0;  // finite elements that the dtype cannot hold: they became infinite
};

// Writes `folder`: model.safetensors and the step's side files, config.json saying the dtype. Staged beside
// it, fsynced, renamed: it is there whole and durable, or not at all. Every byte of the step is checked
// against the manifest on the way; memory does not grow with the model (a row of the widest matrix at least).
// Holds the shared .lock until the files are open. Error::invalid where it cannot be done and why,
// Error::damaged names the tensor.
Result<Exported> export_step(const StepFolder& step, const std::string& folder, const ExportOptions& options);

}  // namespace bitctl
