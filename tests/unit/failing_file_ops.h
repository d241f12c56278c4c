// The real calls, of which the Nth fails; also keeps the names of all calls in their order.
#pragma once

#include <cerrno>
#include <string>
#include <vector>

#include "base/file_ops.h"

namespace bitctl {

class FailingFileOps : public FileOps {
 public:
  enum class How { once, for_ever };

  // nth counts from 1; 0 fails nothing.
  explicit FailingFileOps(int nth = 0, int error = EIO, How how = How::once)
      : nth_(nth), error_(error), how_(how) {}

  const std::vector<std::string>& calls() const { return calls_; }
  bool has_failed() const { return !failed_.empty(); }
  const std::string& first_failed() const { return failed_.front(); }

  int open(const std::string& path, int flags, mode_t mode) override {
    return fails("open") ? -1 : FileOps::open(path, flags, mode);
  }
  int close(int fd) override {
    const int rc = FileOps::close(fd);  // even a close that fails gives the descriptor up
    return fails("close") ? -1 : rc;
  }
  ssize_t write(int fd, const void* data, size_t size) override {
    return fails("write") ? -1 : FileOps::write(fd, data, size);
  }
  ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) override {
    return fails("pwrite") ? -1 : FileOps::pwrite(fd, data, size, offset);
  }
  int fallocate(int fd, off_t size) override {
    return fails("fallocate") ? -1 : FileOps::fallocate(fd, size);
  }
  int ftruncate(int fd, off_t size) override {
    return fails("ftruncate") ? -1 : FileOps::ftruncate(fd, size);
  }
  int fsync(int fd) override { return fails("fsync") ? -1 : FileOps::fsync(fd); }
  int mkdir(const std::string& path, mode_t mode) override {
    return fails("mkdir") ? -1 : FileOps::mkdir(path, mode);
  }
  int link(const std::string& from, const std::string& to) override {
    return fails("link") ? -1 : FileOps::link(from, to);
  }
  int rename(const std::string& from, const std::string& to) override {
    return fails("rename") ? -1 : FileOps::rename(from, to);
  }
  int rename2(const std::string& from, const std::string& to, unsigned flags) override {
    return fails("rename2") ? -1 : FileOps::rename2(from, to, flags);
  }
  int unlink(const std::string& path) override { return fails("unlink") ? -1 : FileOps::unlink(path); }
  int rmdir(const std::string& path) override { return fails("rmdir") ? -1 : FileOps::rmdir(path); }

 private:
  bool fails(const char* call) {
    calls_.emplace_back(call);
    const int count = static_cast<int>(calls_.size());
    if (nth_ == 0 || (how_ == How::once ? count != nth_ : count < nth_)) return false;
    failed_.emplace_back(call);
    errno = error_;
    return true;
  }

  int nth_;
  int error_;
  How how_;
  std::vector<std::string> calls_;
  std::vector<std::string> failed_;
};

}  // namespace bitctl
