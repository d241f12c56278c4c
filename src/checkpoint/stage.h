// Writing one file of a stage: past the page cache where the file system lets us, whole blocks, one fsync.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/file_ops.h"
#include "base/result.h"

namespace bitctl {

// `parts` one behind the other; each starts on a page of memory and, but for the last, has whole pages. The
// last is written up to the next page border (that memory must be readable) and the file then cut to its
// exact size.
Status write_direct(const std::string& path, const std::vector<std::string_view>& parts, FileOps& ops);

// A small file: created new, written, fsynced, closed.
Status write_new_file(const std::string& path, std::string_view content, FileOps& ops);

// A copy of `text` that starts on a page border and may be read up to the next one.
class PageCopy {
 public:
  explicit PageCopy(std::string_view text);
  ~PageCopy();
  PageCopy(const PageCopy&) = delete;
  std::string_view view() const { return {data_, size_}; }

 private:
  char* data_;
  size_t size_;
};

}  // namespace bitctl
