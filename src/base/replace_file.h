// Publishing a file: readers see the old content or the new, never a mixture and never nothing.
#pragma once

#include <string>
#include <string_view>

#include "base/file_ops.h"
#include "base/result.h"

namespace bitctl {

// Temporary file in the same folder (unique name, mode 0666 less umask), write, fsync, rename, fsync of the
// folder. On any failure the old file stands and the temporary one is removed. A failed fsync is never
// retried.
Status replace_file(const std::string& path, std::string_view content, FileOps& ops = system_file_ops());

// Removes temporary files that a killed writer of `path` left behind. Call it only while holding the lock
// that makes one the writer.
void sweep_temporary_files(const std::string& path, FileOps& ops = system_file_ops());

Status write_all(int fd, std::string_view content, const std::string& path, FileOps& ops = system_file_ops());
Status sync_folder(const std::string& path, FileOps& ops = system_file_ops());

std::string folder_of(const std::string& path);    // "." where there is no slash
std::string filename_of(const std::string& path);  // the last component

// Eight hexadecimal digits of randomness, for names that must not collide.
std::string random_hex8();

}  // namespace bitctl
