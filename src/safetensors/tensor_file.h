// An opened safetensors file: header checked, bytes mapped (or read), and the memory owned for as long as
// anybody looks into it. Files are immutable once named, so the mapping needs no lock after it stands: a
// later rename or unlink does not touch it.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "safetensors/header.h"

namespace bitctl {

struct TensorFileOptions {
  bool map = true;        // false, or a network file system: read into memory instead
  std::string lock_path;  // run_lock_of(path); empty: a lone file, LOCK_SH on its own descriptor
  Duration lock_limit = std::chrono::seconds(30);
  Strictness strictness = Strictness::compat;
};

class TensorFile {
 public:
  // One descriptor from open to mapping; the path is never opened twice, symbolic links (Hugging Face's
  // cache) are followed, only a regular file is taken. The shared lock is held from before the open until the
  // mapping stands; blocks for lock_limit at most. Error::locked names the holder, Error::damaged the broken
  // rule.
  static Result<std::shared_ptr<const TensorFile>> open(const std::string& path,
                                                        const TensorFileOptions& options = {});
  ~TensorFile();
  TensorFile(const TensorFile&) = delete;

  const TensorHeader& header() const { return header_; }
  std::string_view bytes(const TensorInfo& tensor) const;  // of this file's own header
  uint64_t file_bytes() const { return size_; }
  bool mapped() const { return mapped_; }
  const std::string& path() const { return path_; }

  // Brings the pages [offset, offset + size) of the file into memory; for honest loading progress. Blocks for
  // the disk.
  void populate(uint64_t offset, uint64_t size) const;

 private:
  TensorFile() = default;

  std::string path_;
  TensorHeader header_;
  void* base_ = nullptr;
  uint64_t size_ = 0;
  bool mapped_ = false;
};

// The lock that guards a file which lies in a run's checkpoints/step-… or model/ folder, also where the path
// leads there by symbolic links; empty for any other path, and where nobody has made that lock.
std::string run_lock_of(const std::string& path);

// False for the file systems (statfs's f_type) where a server or a daemon may take pages away from a mapping.
bool can_be_mapped(uint64_t file_system);

}  // namespace bitctl
