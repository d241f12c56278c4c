// manifest.json: what a checkpoint folder holds and how it is told from a broken one. Written last; a folder
// without a manifest that verifies is no checkpoint.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/strict_json.h"
#include "safetensors/header.h"

namespace bitctl {

constexpr const char* kManifestName = "manifest.json";
constexpr const char* kManifestFormat = "bitctl-checkpoint/1";
constexpr const char* kModelFile = "model.safetensors";
constexpr const char* kTrainingFile = "training.safetensors";
// Beside a model in several files, as Hugging Face's readers expect it: which of them holds which tensor.
constexpr const char* kModelIndex = "model.safetensors.index.json";
// In the metadata of a file that the trainer does not expect to change: "true".
constexpr const char* kFrozenKey = "bitctl.frozen";

// model.safetensors, or a part of it: model-00001-of-00002.safetensors.
bool is_model_file(std::string_view name);

struct ManifestTensor {
  TensorInfo info;
  std::string xxh3;
};

struct ManifestFile {
  std::string name;
  uint64_t bytes = 0;
  uint64_t header_bytes = 0;
  std::string header_xxh3;
  std::vector<ManifestTensor> tensors;  // in data order; with the header they cover every byte of the file

  uint64_t data_bytes() const { return bytes - header_bytes; }
};

struct ManifestSideFile {
  std::string name;
  uint64_t bytes = 0;
  std::string xxh3;
};

struct Manifest {
  std::string run;
  uint64_t step = 0;
  uint32_t attempt = 0;
  uint32_t world_size = 1;              // ranks whose state it holds; files of rank K > 0 end in -rank-K
  int64_t created = 0;                  // Unix seconds
  std::string tensor_check;             // "torch 2.13.0+cpu", or "none" where the engine could not be loaded
  Json metrics = Json::object();        // name → number
  std::vector<std::string> non_finite;  // names of tensors that hold a NaN or an infinity
  std::vector<ManifestFile> files;
  std::vector<ManifestSideFile> side_files;

  const ManifestFile* file(std::string_view name) const;
  uint64_t bytes() const;  // of all files
};

// One line of JSON; its last field is the digest of everything before it.
std::string to_bytes(const Manifest& manifest);

// Error::damaged with the path and the reason; an unknown major version of the format is refused. What comes
// back is sound in itself: plain names, and tensors that follow each other from the header's end to the
// file's.
Result<Manifest> parse_manifest(std::string_view bytes, const std::string& path);

// Whose file it is: K for "model-rank-K.safetensors" and "training-rank-K.safetensors", 0 for every other
// name.
uint32_t rank_of_file(std::string_view name);
// The same step with the files of one rank alone.
Manifest part_of(const Manifest& manifest, uint32_t rank);

// True where both files are the same, byte for byte.
bool same_content(const ManifestFile& a, const ManifestFile& b);

}  // namespace bitctl
