// Whether a folder is fit to hold runs. Each check writes only into `scratch`, and none takes longer than a
// second on a disk that answers.
#pragma once

#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "doctor/finding.h"

namespace bitctl {

// A folder of its own below `parent`, removed with what is in it.
class ScratchFolder {
 public:
  static Result<ScratchFolder> make(const std::string& parent);
  ScratchFolder(ScratchFolder&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  ~ScratchFolder();
  const std::string& path() const { return path_; }

 private:
  explicit ScratchFolder(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// `checkpoint` is the size of the newest one in bytes, 0 where there is none.
Finding space_finding(uint64_t available, uint64_t checkpoint);
Finding check_space(const std::string& folder, uint64_t checkpoint);

// At most 64 MiB or a second of writing, then fdatasync.
Finding check_speed(const std::string& scratch, uint64_t checkpoint);
Finding speed_finding(double bytes_per_second, uint64_t checkpoint);

Finding check_direct_io(const std::string& scratch);

// Two processes: an exclusive lock keeps a shared one out, and is free when its holder is killed. `lock` is
// flock(2), for a file system whose locks are none.
Finding check_locks(const std::string& scratch, int (*lock)(int fd, int operation));

// A rename and an fsync of the folder, as every commit does.
Finding check_rename(const std::string& scratch);

// What the file system writes down as the time of a change, against our own clock.
Finding check_file_time(const std::string& scratch, Wall now);

}  // namespace bitctl
