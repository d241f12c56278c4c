// A safetensors file read piece by piece: bounded memory whatever its size, no mapping that a disk error
// could turn into a signal, and nothing of it left in the page cache.
#pragma once

#include <string>

#include "base/clock.h"
#include "base/fd.h"
#include "base/result.h"
#include "safetensors/header.h"

namespace bitctl {

class TensorStream {
 public:
  // Checks the header as strictly as our own files are. The caller holds the shared lock until this returns;
  // from then on the descriptor keeps the file, whatever becomes of its name.
  static Result<TensorStream> open(const std::string& path);

  const TensorHeader& header() const { return header_; }
  const std::string& head() const { return head_; }  // the header's own bytes
  const std::string& path() const { return path_; }

  // Exactly `size` bytes from `offset` of the data on. Blocks for the disk.
  Status read(uint64_t offset, uint64_t size, char* to) const;

 private:
  TensorStream(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  Status read_at(uint64_t offset, uint64_t size, char* to) const;

  Fd fd_;
  std::string path_;
  std::string head_;
  TensorHeader header_;
};

}  // namespace bitctl
