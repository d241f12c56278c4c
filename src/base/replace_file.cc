#include "base/replace_file.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/random.h>
#include <unistd.h>

#include <cstdint>
#include <memory>

namespace bitctl {
namespace {

std::string temporary_prefix(const std::string& path) { return "." + filename_of(path) + "."; }

}  // namespace

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string filename_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

std::string random_hex8() {
  uint32_t value = 0;
  if (::getrandom(&value, sizeof value, 0) != static_cast<ssize_t>(sizeof value))
    value = static_cast<uint32_t>(::getpid()) * 2654435761u;
  return fmt::format("{:08x}", value);
}

Status write_all(int fd, std::string_view content, const std::string& path, FileOps& ops) {
  while (!content.empty()) {
    const ssize_t n = ops.write(fd, content.data(), content.size());
    if (n < 0) return fail_errno("cannot write " + path);
    if (n == 0) return fail_errno("cannot write " + path, EIO);
    content.remove_prefix(static_cast<size_t>(n));
  }
  return {};
}

Status sync_folder(const std::string& path, FileOps& ops) {
  const int fd = ops.open(path, O_RDONLY | O_DIRECTORY, 0);
  if (fd < 0) return fail_errno("cannot open folder " + path);
  const int rc = ops.fsync(fd);
  const int error = errno;
  ops.close(fd);
  // Network file systems may not know fsync of a folder; there a rename is as durable as the server makes it.
  if (rc != 0 && error != EINVAL) return fail_errno("cannot sync folder " + path, error);
  return {};
}

Status replace_file(const std::string& path, std::string_view content, FileOps& ops) {
  const std::string folder = folder_of(path);
  const std::string temporary =
      fmt::format("{}/{}{}.{}.tmp", folder, temporary_prefix(path), ::getpid(), random_hex8());
  const int fd = ops.open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0666);
  if (fd < 0) return fail_errno("cannot create " + temporary);

  Status status = write_all(fd, content, temporary, ops);
  if (status && ops.fsync(fd) != 0) status = fail_errno("cannot sync " + temporary);
  if (ops.close(fd) != 0 && status) status = fail_errno("cannot close " + temporary);
  if (status && ops.rename(temporary, path) != 0)
    status = fail_errno("cannot rename " + temporary + " to " + path);
  if (!status) {
    ops.unlink(temporary);
    return status;
  }
  return sync_folder(folder, ops);
}

void sweep_temporary_files(const std::string& path, FileOps& ops) {
  const std::string folder = folder_of(path);
  const std::string prefix = temporary_prefix(path);
  std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(folder.c_str()), ::closedir);
  if (!dir) return;
  while (const dirent* entry = ::readdir(dir.get())) {
    const std::string name = entry->d_name;
    if (name.starts_with(prefix) && name.ends_with(".tmp")) ops.unlink(folder + "/" + name);
  }
}

}  // namespace bitctl
