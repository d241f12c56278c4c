#include "base/read_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

namespace bitctl {
namespace {

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return "not a regular file";
}

}  // namespace

Result<std::string> read_small_file(const std::string& path, size_t limit, Links links) {
  const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (links == Links::refuse ? O_NOFOLLOW : 0);
  Fd fd(::open(path.c_str(), flags));
  if (!fd) {
    if (errno == ELOOP && links == Links::refuse)
      return fail(ErrorKind::damaged, path + ": a symbolic link, which is not followed here", ELOOP);
    if (errno == ENXIO) return fail(ErrorKind::damaged, path + ": not a regular file", ENXIO);
    return fail_errno(path);
  }
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return fail_errno(path);
  if (!S_ISREG(st.st_mode))
    return fail(ErrorKind::damaged, path + ": " + kind_of(st.st_mode) + ", not a file");
  std::string content;
  // One byte more than the limit is asked for, so that a file which grows meanwhile is noticed too.
  content.resize(std::min<size_t>(static_cast<size_t>(st.st_size), limit) + 1);
  size_t used = 0;
  while (used < content.size()) {
    const ssize_t n = ::read(fd.get(), content.data() + used, content.size() - used);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(path);
    if (n == 0) break;
    used += static_cast<size_t>(n);
    if (used == content.size() && used <= limit) content.resize(limit + 1);
  }
  if (used > limit || static_cast<size_t>(st.st_size) > limit)
    return fail(ErrorKind::damaged, path + ": larger than " + std::to_string(limit) + " bytes");
  content.resize(used);
  return content;
}

Result<std::string> read_tail(const std::string& path, size_t limit) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW));
  if (!fd) return fail_errno(path);
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return fail_errno(path);
  if (!S_ISREG(st.st_mode))
    return fail(ErrorKind::damaged, path + ": " + kind_of(st.st_mode) + ", not a file");
  const off_t from = std::max<off_t>(0, st.st_size - static_cast<off_t>(limit));
  std::string tail(static_cast<size_t>(st.st_size - from), '\0');
  const ssize_t n = ::pread(fd.get(), tail.data(), tail.size(), from);
  if (n < 0) return fail_errno(path);
  tail.resize(static_cast<size_t>(n));
  return tail;
}

std::string read_kernel_file(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  char part[4096];
  for (ssize_t size = 0; (size = ::read(fd.get(), part, sizeof part)) > 0;)
    text.append(part, static_cast<size_t>(size));
  return text;
}

}  // namespace bitctl
