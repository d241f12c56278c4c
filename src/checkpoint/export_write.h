// The exported model.safetensors: read piece by piece, checked, cast or quantized, written at its place.
#pragma once

#include <string>

#include "checkpoint/export.h"
#include "checkpoint/export_plan.h"
#include "checkpoint/manifest.h"
#include "safetensors/tensor_stream.h"

namespace bitctl {

// A new file, fsynced. Counts into `exported`. Each tensor of the source is held against its digest in
// `file`: Error::damaged names the one that does not match.
Status write_exported(const std::string& path, const TensorStream& source, const ManifestFile& file,
                      const ExportPlan& plan, FileOps& ops, Exported& exported);

}  // namespace bitctl
