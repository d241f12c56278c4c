#include "base/file_ops.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace bitctl {
namespace {

template <typename Call>
auto retry_eintr(Call call) {
  auto result = call();
  while (result == -1 && errno == EINTR) result = call();
  return result;
}

}  // namespace

int FileOps::open(const std::string& path, int flags, mode_t mode) {
  return retry_eintr([&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); });
}
int FileOps::close(int fd) { return ::close(fd); }
ssize_t FileOps::write(int fd, const void* data, size_t size) {
  return retry_eintr([&] { return ::write(fd, data, size); });
}
ssize_t FileOps::pwrite(int fd, const void* data, size_t size, off_t offset) {
  return retry_eintr([&] { return ::pwrite(fd, data, size, offset); });
}
ssize_t FileOps::pread(int fd, void* data, size_t size, off_t offset) {
  return retry_eintr([&] { return ::pread(fd, data, size, offset); });
}
int FileOps::fallocate(int fd, off_t size) {
  return retry_eintr([&] { return ::fallocate(fd, 0, 0, size); });
}
int FileOps::ftruncate(int fd, off_t size) {
  return retry_eintr([&] { return ::ftruncate(fd, size); });
}
// Never retried: after a failed fsync the kernel may report success for data that is gone.
int FileOps::fsync(int fd) { return ::fsync(fd); }
int FileOps::sync_file_range(int fd, off_t offset, off_t size, unsigned flags) {
  return retry_eintr([&] { return ::sync_file_range(fd, offset, size, flags); });
}
int FileOps::fadvise(int fd, off_t offset, off_t size, int advice) {
  errno = ::posix_fadvise(fd, offset, size, advice);
  return errno == 0 ? 0 : -1;
}
int FileOps::set_status_flags(int fd, int flags) { return ::fcntl(fd, F_SETFL, flags); }
int FileOps::mkdir(const std::string& path, mode_t mode) { return ::mkdir(path.c_str(), mode); }
int FileOps::link(const std::string& from, const std::string& to) { return ::link(from.c_str(), to.c_str()); }
int FileOps::rename(const std::string& from, const std::string& to) {
  return ::rename(from.c_str(), to.c_str());
}
int FileOps::rename2(const std::string& from, const std::string& to, unsigned flags) {
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags));
}
int FileOps::unlink(const std::string& path) { return ::unlink(path.c_str()); }
int FileOps::rmdir(const std::string& path) { return ::rmdir(path.c_str()); }

FileOps& system_file_ops() {
  static FileOps ops;
  return ops;
}

}  // namespace bitctl
