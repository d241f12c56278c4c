// The exported model.safetensors: read piece by piece, checked, cast or quantized, written at its place.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/export.h"
#include "checkpoint/export_plan.h"
#include "checkpoint/manifest.h"
#include "safetensors/tensor_stream.h"

namespace bitctl {

// A file of the model, open, and what it is to hold.
struct ExportSource {
  TensorStream stream;
  ManifestFile file;
};

// A new file, fsynced, of the tensors of all sources, which the plan has in that order. Counts into
// `exported`. Each tensor is held against its digest: Error::damaged names the one that does not match.
Status write_exported(const std::string& path, const std::vector<ExportSource>& sources,
                      const ExportPlan& plan, FileOps& ops, Exported& exported);

}  // namespace bitctl
