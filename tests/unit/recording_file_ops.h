// Keeps what was called, in order and with its bytes, and does it through another FileOps (the real calls, or
// failing ones). The log is what the model of crashes replays. Safe for several threads.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/file_ops.h"

namespace bitctl {

struct FileOp {
  enum class Kind {
    open,
    write,
    size,
    size_at_least,
    fsync,
    mkdir,
    link,
    rename,
    exchange,
    unlink,
    rmdir,
    note
  };

  Kind kind = Kind::note;
  std::string path;      // below the recorder's root; the text of a note
  std::string to;        // of link, rename, exchange
  int handle = 0;        // of open and of what is done with it: one number for each open(2)
  bool created = false;  // open: the name is new
  bool failed = false;   // fsync; every other call that failed has changed nothing and is not kept
  uint64_t offset = 0;   // write
  uint64_t size = 0;     // size, size_at_least
  std::string bytes;     // write

  bool operator==(const FileOp&) const = default;
};

class RecordingFileOps : public FileOps {
 public:
  explicit RecordingFileOps(std::string root, FileOps& inner = system_file_ops())
      : root_(std::move(root)), inner_(inner) {}

  const std::vector<FileOp>& log() const { return log_; }
  // Something else that happened in between.
  void note(const std::string& text) {
    const std::lock_guard guard(mutex_);
    log_.push_back({.kind = FileOp::Kind::note, .path = text});
  }

  int open(const std::string& path, int flags, mode_t mode) override {
    const bool existed = ::access(path.c_str(), F_OK) == 0;
    const int fd = inner_.open(path, flags, mode);
    const std::lock_guard guard(mutex_);
    if (fd < 0) return fd;
    handles_[fd] = ++opened_;
    log_.push_back({.kind = FileOp::Kind::open,
                    .path = below(path),
                    .handle = opened_,
                    .created = (flags & O_CREAT) && !existed});
    if (flags & O_TRUNC && existed) log_.push_back({.kind = FileOp::Kind::size, .handle = opened_});
    return fd;
  }
  int close(int fd) override { return inner_.close(fd); }
  ssize_t write(int fd, const void* data, size_t size) override {
    const auto offset = static_cast<uint64_t>(::lseek(fd, 0, SEEK_CUR));
    return wrote(fd, data, inner_.write(fd, data, size), offset);
  }
  ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) override {
    return wrote(fd, data, inner_.pwrite(fd, data, size, offset), static_cast<uint64_t>(offset));
  }
  ssize_t pread(int fd, void* data, size_t size, off_t offset) override {
    return inner_.pread(fd, data, size, offset);
  }
  int fallocate(int fd, off_t size) override {
    return sized(fd, inner_.fallocate(fd, size), FileOp::Kind::size_at_least, size);
  }
  int ftruncate(int fd, off_t size) override {
    return sized(fd, inner_.ftruncate(fd, size), FileOp::Kind::size, size);
  }
  // In the log where it began: a write that ends meanwhile is not covered.
  int fsync(int fd) override {
    size_t at = 0;
    {
      const std::lock_guard guard(mutex_);
      at = log_.size();
      log_.push_back({.kind = FileOp::Kind::fsync, .handle = handles_[fd]});
    }
    const int rc = inner_.fsync(fd);
    const std::lock_guard guard(mutex_);
    log_[at].failed = rc != 0;
    return rc;
  }
  int mkdir(const std::string& path, mode_t mode) override {
    return named(inner_.mkdir(path, mode), FileOp::Kind::mkdir, path);
  }
  int link(const std::string& from, const std::string& to) override {
    return named(inner_.link(from, to), FileOp::Kind::link, from, to);
  }
  int rename(const std::string& from, const std::string& to) override {
    return named(inner_.rename(from, to), FileOp::Kind::rename, from, to);
  }
  int rename2(const std::string& from, const std::string& to, unsigned flags) override {
    const auto kind = flags & RENAME_EXCHANGE ? FileOp::Kind::exchange : FileOp::Kind::rename;
    return named(inner_.rename2(from, to, flags), kind, from, to);
  }
  int unlink(const std::string& path) override {
    return named(inner_.unlink(path), FileOp::Kind::unlink, path);
  }
  int rmdir(const std::string& path) override { return named(inner_.rmdir(path), FileOp::Kind::rmdir, path); }

 private:
  std::string below(const std::string& path) const {
    return path == root_ ? "" : path.starts_with(root_ + "/") ? path.substr(root_.size() + 1) : path;
  }
  ssize_t wrote(int fd, const void* data, ssize_t n, uint64_t offset) {
    const std::lock_guard guard(mutex_);
    if (n > 0)
      log_.push_back({.kind = FileOp::Kind::write,
                      .handle = handles_[fd],
                      .offset = offset,
                      .bytes = std::string(static_cast<const char*>(data), static_cast<size_t>(n))});
    return n;
  }
  int sized(int fd, int rc, FileOp::Kind kind, off_t size) {
    const std::lock_guard guard(mutex_);
    if (rc == 0) log_.push_back({.kind = kind, .handle = handles_[fd], .size = static_cast<uint64_t>(size)});
    return rc;
  }
  int named(int rc, FileOp::Kind kind, const std::string& path, const std::string& to = {}) {
    const int error = errno;
    const std::lock_guard guard(mutex_);
    if (rc == 0) log_.push_back({.kind = kind, .path = below(path), .to = to.empty() ? "" : below(to)});
    errno = error;
    return rc;
  }

  std::string root_;
  FileOps& inner_;
  std::mutex mutex_;
  std::map<int, int> handles_;
  int opened_ = 0;
  std::vector<FileOp> log_;
};

}  // namespace bitctl
