// What lies in a run's checkpoints folder, read from the disk each time: folders, never names or dates,
// decide.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "checkpoint/manifest.h"

namespace bitctl {

struct StepFolder {
  uint64_t step = 0;
  std::string path;
};

std::string step_folder_name(uint64_t step);  // "step-000000120"
std::optional<uint64_t> step_of_folder_name(const std::string& name);

// Folders named step-N, newest first; nothing is opened.
std::vector<StepFolder> step_folders(const std::string& checkpoints);

// The newest below `before` that reads and whose tensors are all finite; nothing where there is none. What is
// newer than it is put into `newer`.
std::optional<StepFolder> newest_finite_step(const std::string& checkpoints, uint64_t before,
                                             std::vector<StepFolder>& newer);

// Cheap: the manifest reads and is of that step, every file is there with its size. Error::damaged says what
// is wrong.
Result<Manifest> inspect_step(const StepFolder& folder);

// The header (its region of the file, `head`) against its digest, its own rules and the manifest's table.
Status check_header(std::string_view head, const ManifestFile& file, const std::string& path);

// Every byte: headers, tensors and side files against the manifest's digests; the header's own table against
// the manifest's. Names the damaged tensor.
Result<Manifest> verify_step(const StepFolder& folder);

// A lone safetensors file: the header's rules, and that the tensors fill the file.
Result<TensorHeader> verify_tensor_file(const std::string& path);

}  // namespace bitctl
