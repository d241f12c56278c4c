// Writing PULSE. Only the holder of the exclusive lock on `<path>.lock` may call this (design: one writer at
// a time).
#pragma once

#include <string>

#include "base/file_ops.h"
#include "base/result.h"
#include "pulse/status.h"

namespace bitctl {

// Temporary file, fsync, rename, fsync of the folder. Error::invalid for a status that a reader would refuse
// (not finite, negative). A message of more than 4096 bytes is cut, so that no reader refuses the file for
// its size.
Status write_pulse(const std::string& path, const PulseStatus& status, FileOps& ops = system_file_ops());

}  // namespace bitctl
