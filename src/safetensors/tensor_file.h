// An opened safetensors file: header checked, bytes mapped (or read), and the memory owned for as long as
// anybody looks into it. Files are immutable once named, so the mapping needs no lock after it stands.
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
  bool map = true;  // false, or a network file system: read into memory instead
  std::string
      lock_path;  // the run's checkpoints/.lock; empty for a lone file (LOCK_SH on its own descriptor)
  Duration lock_limit = std::chrono::seconds(30);
  Strictness strictness = Strictness::compat;
};

class TensorFile {
 public:
  // One descriptor from open to mapping; the path is never opened twice. The shared lock is held from before
  // the open until the mapping stands. Error::locked names the holder, Error::damaged the broken rule.
  static Result<std::shared_ptr<const TensorFile>> open(const std::string& path,
                                                        const TensorFileOptions& options = {});
  ~TensorFile();
  TensorFile(const TensorFile&) = delete;

  const TensorHeader& header() const { return header_; }
  std::string_view bytes(const TensorInfo& tensor) const;
  uint64_t file_bytes() const { return size_; }
  bool mapped() const { return mapped_; }
  const std::string& path() const { return path_; }

  // Brings the pages [offset, offset + size) of the file into memory; for honest loading progress.
  void populate(uint64_t offset, uint64_t size) const;

 private:
  TensorFile() = default;

  std::string path_;
  TensorHeader header_;
  void* base_ = nullptr;
  uint64_t size_ = 0;
  bool mapped_ = false;
};

// The lock that guards a file which lies in a run's checkpoints/step-… or model/ folder; empty for any other
// path.
std::string run_lock_of(const std::string& path);

}  // namespace bitctl
