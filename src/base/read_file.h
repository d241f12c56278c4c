// Reading small files that anybody may have written: nothing here blocks, follows a planted link, or trusts a
// size.
#pragma once

#include <cstddef>
#include <string>

#include "base/result.h"

namespace bitctl {

enum class Links { follow, refuse };

// The whole content of a regular file of at most `limit` bytes. A FIFO, folder, device or larger file is
// Error::damaged with the reason; a missing file is Error::not_found. Never blocks.
Result<std::string> read_small_file(const std::string& path, size_t limit, Links links = Links::refuse);

// The last `limit` bytes at most of a regular file of any size.
Result<std::string> read_tail(const std::string& path, size_t limit);

// A file of /proc or of a cgroup; empty where it cannot be read. What it tells of may go while it is read:
// iterating over a stream's buffer throws then.
std::string read_kernel_file(const std::string& path);

}  // namespace bitctl
