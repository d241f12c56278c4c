// flock(2) on a file that exists only to be locked: never renamed, never deleted. Close-on-exec, so that no
// child keeps it; the kernel frees it when the last process that shares the descriptor is gone.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "base/process_id.h"
#include "base/result.h"

namespace bitctl {

class FileLock {
 public:
  enum class Mode { shared, exclusive };

  // Tries until `limit` has passed (0: once). An exclusive holder's pid and command are written into the file
  // for people to read. Error::locked names the holders: "held by pid 4711 (started …): bitctl train …". A
  // shared lock never creates or writes the file; where it does not exist, Error::not_found.
  static Result<FileLock> acquire(const std::string& path, Mode mode, Duration limit);

  // A lock inherited through a descriptor; nothing is checked.
  static FileLock adopt(Fd fd, std::string path) { return FileLock(std::move(fd), std::move(path)); }

  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }

 private:
  FileLock(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  Fd fd_;
  std::string path_;
};

// The same for a descriptor that one has already opened; the lock lives as long as its open file description.
// `path` is for the message. Writes nothing into the file.
Status lock_descriptor(int fd, FileLock::Mode mode, Duration limit, const std::string& path);

// Who holds a lock on the file, as the kernel tells it (/proc/locks), else as the file's own text says.
// One sentence; empty where nobody is known.
std::string lock_holders(const std::string& path);

// The processes behind it.
std::vector<pid_t> lock_holder_pids(const std::string& path);

}  // namespace bitctl
