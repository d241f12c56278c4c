// The real calls, of which the Nth fails, once or for ever after; also keeps what was called, in order.
#pragma once

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "base/file_ops.h"

namespace bitctl {

class FailingFileOps : public FileOps {
 public:
  enum class How { once, for_ever };

  // nth counts from 1; 0 fails nothing. With `only`, calls of that name alone count.
  explicit FailingFileOps(int nth = 0, int error = EIO, How how = How::once, std::string only = {})
      : nth_(nth), error_(error), how_(how), only_(std::move(only)) {}

  size_t short_write = 0;  // a write reports at most this many bytes; 0: all

  const std::vector<std::string>& calls() const { return calls_; }  // "fsync"
  const std::vector<std::string>& log() const { return log_; }      // "fsync model.safetensors"
  void note(std::string text) { log_.push_back(std::move(text)); }  // something else that happened in between
  int count(const std::string& call) const {
    return static_cast<int>(std::count(calls_.begin(), calls_.end(), call));
  }
  bool has_failed() const { return !failed_.empty(); }
  const std::string& first_failed() const { return failed_.front(); }

  int open(const std::string& path, int flags, mode_t mode) override {
    if (fails("open", path)) return -1;
    const int fd = FileOps::open(path, flags, mode);
    if (fd >= 0) {
      names_.resize(std::max<size_t>(names_.size(), static_cast<size_t>(fd) + 1));
      names_[static_cast<size_t>(fd)] = path;
    }
    return fd;
  }
  int close(int fd) override {
    const int rc = FileOps::close(fd);  // even a close that fails gives the descriptor up
    return fails("close", path_of(fd)) ? -1 : rc;
  }
  ssize_t write(int fd, const void* data, size_t size) override {
    return fails("write", path_of(fd)) ? -1 : FileOps::write(fd, data, static_cast<size_t>(limited(size)));
  }
  // The whole write is done, since O_DIRECT takes whole blocks only; the caller is told of less.
  ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) override {
    return fails("pwrite", path_of(fd)) ? -1
                                        : std::min(FileOps::pwrite(fd, data, size, offset), limited(size));
  }
  ssize_t pread(int fd, void* data, size_t size, off_t offset) override {
    return fails("pread", path_of(fd)) ? -1 : FileOps::pread(fd, data, size, offset);
  }
  int fallocate(int fd, off_t size) override {
    return fails("fallocate", path_of(fd)) ? -1 : FileOps::fallocate(fd, size);
  }
  int ftruncate(int fd, off_t size) override {
    return fails("ftruncate", path_of(fd)) ? -1 : FileOps::ftruncate(fd, size);
  }
  int fsync(int fd) override { return fails("fsync", path_of(fd)) ? -1 : FileOps::fsync(fd); }
  int sync_file_range(int fd, off_t offset, off_t size, unsigned flags) override {
    return fails("sync_file_range", path_of(fd)) ? -1 : FileOps::sync_file_range(fd, offset, size, flags);
  }
  int fadvise(int fd, off_t offset, off_t size, int advice) override {
    return fails("fadvise", path_of(fd)) ? -1 : FileOps::fadvise(fd, offset, size, advice);
  }
  int set_status_flags(int fd, int flags) override {
    return fails("set_status_flags", path_of(fd)) ? -1 : FileOps::set_status_flags(fd, flags);
  }
  int mkdir(const std::string& path, mode_t mode) override {
    return fails("mkdir", path) ? -1 : FileOps::mkdir(path, mode);
  }
  int link(const std::string& from, const std::string& to) override {
    return fails("link", to) ? -1 : FileOps::link(from, to);
  }
  int rename(const std::string& from, const std::string& to) override {
    return fails("rename", to) ? -1 : FileOps::rename(from, to);
  }
  int rename2(const std::string& from, const std::string& to, unsigned flags) override {
    return fails("rename2", to) ? -1 : FileOps::rename2(from, to, flags);
  }
  int unlink(const std::string& path) override { return fails("unlink", path) ? -1 : FileOps::unlink(path); }
  int rmdir(const std::string& path) override { return fails("rmdir", path) ? -1 : FileOps::rmdir(path); }

 private:
  std::string path_of(int fd) const {
    return static_cast<size_t>(fd) < names_.size() ? names_[static_cast<size_t>(fd)] : "?";
  }
  ssize_t limited(size_t size) const {
    return static_cast<ssize_t>(short_write > 0 ? std::min(short_write, size) : size);
  }

  bool fails(const char* call, const std::string& path) {
    calls_.emplace_back(call);
    log_.push_back(std::string(call) + " " + path.substr(path.rfind('/') + 1));
    if (nth_ == 0 || (!only_.empty() && only_ != call)) return false;
    ++counted_;
    if (how_ == How::once ? counted_ != nth_ : counted_ < nth_) return false;
    failed_.emplace_back(call);
    errno = error_;
    return true;
  }

  int nth_;
  int error_;
  How how_;
  std::string only_;
  int counted_ = 0;
  std::vector<std::string> names_;
  std::vector<std::string> calls_;
  std::vector<std::string> log_;
  std::vector<std::string> failed_;
};

}  // namespace bitctl
