// The few system calls behind every durable write, in one table, so that a test can fail the Nth of them,
// record their order, or drop what was never synced. Each method behaves like the call it is named after:
// -1 and errno on failure.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <string>

namespace bitctl {

class FileOps {
 public:
  virtual ~FileOps() = default;
  virtual int open(const std::string& path, int flags, mode_t mode);
  virtual int close(int fd);
  virtual ssize_t write(int fd, const void* data, size_t size);
  virtual ssize_t pwrite(int fd, const void* data, size_t size, off_t offset);
  virtual ssize_t pread(int fd, void* data, size_t size, off_t offset);
  virtual int fallocate(int fd, off_t size);
  virtual int ftruncate(int fd, off_t size);
  virtual int fsync(int fd);
  // How a file reaches the disk, not whether: neither makes anything durable, but an error that the first
  // one reports is reported by no later fsync of that descriptor.
  virtual int sync_file_range(int fd, off_t offset, off_t size, unsigned flags);
  virtual int fadvise(int fd, off_t offset, off_t size, int advice);
  virtual int set_status_flags(int fd, int flags);  // fcntl(F_SETFL)
  virtual int mkdir(const std::string& path, mode_t mode);
  virtual int link(const std::string& from, const std::string& to);
  virtual int rename(const std::string& from, const std::string& to);
  // renameat2 with RENAME_NOREPLACE or RENAME_EXCHANGE.
  virtual int rename2(const std::string& from, const std::string& to, unsigned flags);
  virtual int unlink(const std::string& path);
  virtual int rmdir(const std::string& path);
};

// The real calls; EINTR is retried where the call can be repeated.
FileOps& system_file_ops();

}  // namespace bitctl
