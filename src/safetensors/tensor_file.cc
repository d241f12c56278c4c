#include "safetensors/tensor_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/fd.h"
#include "base/lock.h"
#include "base/replace_file.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22  // Linux 5.14
#endif

namespace bitctl {
namespace {

tl::unexpected<Error> at_path(const std::string& path, const Error& error) {
  return fail(error.kind, path + ": " + error.message, error.errno_value);
}

Result<uint64_t> regular_size(int fd, const std::string& path) {
  struct stat st {};
  if (::fstat(fd, &st) != 0) return fail_errno(path);
  if (!S_ISREG(st.st_mode)) return fail(ErrorKind::damaged, path + ": not a regular file");
  return static_cast<uint64_t>(st.st_size);
}

// Exactly `size` bytes from `offset` on.
Status read_exactly(int fd, char* to, uint64_t size, uint64_t offset, const std::string& path) {
  for (uint64_t done = 0; done < size;) {
    const size_t chunk = std::min<uint64_t>(size - done, 64 << 20);
    const ssize_t n = ::pread(fd, to + done, chunk, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(path);
    if (n == 0) return fail(ErrorKind::damaged, path + ": became shorter while it was read");
    done += static_cast<uint64_t>(n);
  }
  return {};
}

Result<TensorHeader> read_header(int fd, uint64_t file_bytes, Strictness strictness,
                                 const std::string& path) {
  std::string head(std::min<uint64_t>(8, file_bytes), '\0');
  if (auto read = read_exactly(fd, head.data(), head.size(), 0, path); !read) return forward(std::move(read));
  const auto size = header_size(head, file_bytes);
  if (!size) return at_path(path, size.error());
  head.resize(*size);
  if (auto read = read_exactly(fd, head.data() + 8, *size - 8, 8, path); !read)
    return forward(std::move(read));
  auto header = parse_header(head, file_bytes, strictness);
  if (!header) return at_path(path, header.error());
  return header;
}

bool lies_on_mappable_file_system(int fd) {
  struct statfs fs {};
  return ::fstatfs(fd, &fs) == 0 && can_be_mapped(static_cast<uint64_t>(fs.f_type));
}

// Held until the mapping stands: the run's lock, or one on the lone file's own descriptor.
Status lock_lone_file(int fd, Duration limit, const std::string& path) {
  auto locked = lock_descriptor(fd, FileLock::Mode::shared, limit, path);
  // Without a lock to take there is nobody who could hold it.
  if (!locked && locked.error().kind == ErrorKind::io) return {};
  return locked;
}

}  // namespace

bool can_be_mapped(uint64_t file_system) {
  constexpr uint32_t kRemote[] = {
      NFS_SUPER_MAGIC, SMB_SUPER_MAGIC,  SMB2_SUPER_MAGIC, CIFS_SUPER_MAGIC, FUSE_SUPER_MAGIC,
      V9FS_MAGIC,      CEPH_SUPER_MAGIC, AFS_SUPER_MAGIC,  CODA_SUPER_MAGIC, 0x0bd00bd0 /* Lustre */,
  };
  // f_type is a signed word; only its low 32 bits are the magic number.
  return std::find(std::begin(kRemote), std::end(kRemote), static_cast<uint32_t>(file_system)) ==
         std::end(kRemote);
}

Result<std::shared_ptr<const TensorFile>> TensorFile::open(const std::string& path,
                                                           const TensorFileOptions& options) {
  std::optional<FileLock> run_lock;
  if (!options.lock_path.empty()) {
    auto lock = FileLock::acquire(options.lock_path, FileLock::Mode::shared, options.lock_limit);
    if (!lock) return forward(std::move(lock));
    run_lock = std::move(*lock);
  }
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return fail_errno(path);
  if (!run_lock)
    if (auto locked = lock_lone_file(fd.get(), options.lock_limit, path); !locked)
      return forward(std::move(locked));
  const auto size = regular_size(fd.get(), path);
  if (!size) return tl::unexpected(size.error());

  auto header = read_header(fd.get(), *size, options.strictness, path);
  if (!header) return forward(std::move(header));

  const bool map = options.map && lies_on_mappable_file_system(fd.get());
  void* base = ::mmap(nullptr, *size, map ? PROT_READ : PROT_READ | PROT_WRITE,
                      map ? MAP_PRIVATE : MAP_PRIVATE | MAP_ANONYMOUS, map ? fd.get() : -1, 0);
  if (base == MAP_FAILED) return fail_errno(fmt::format("{}: no memory for {} bytes", path, *size));
  std::shared_ptr<TensorFile> file(new TensorFile);
  file->path_ = path;
  file->header_ = std::move(*header);
  file->base_ = base;
  file->size_ = *size;
  file->mapped_ = map;
  if (!map) {
    if (auto read = read_exactly(fd.get(), static_cast<char*>(base), *size, 0, path); !read)
      return forward(std::move(read));
    ::mprotect(base, *size, PROT_READ);
  }
  const auto size_now = regular_size(fd.get(), path);
  if (!size_now) return tl::unexpected(size_now.error());
  if (*size_now != *size) return fail(ErrorKind::damaged, path + ": changed its size while it was opened");
  // A mapping keeps the open file description, and with it the lock, alive beyond the close.
  if (!run_lock) ::flock(fd.get(), LOCK_UN);
  return file;
}

TensorFile::~TensorFile() {
  if (base_ != nullptr) ::munmap(base_, size_);
}

std::string_view TensorFile::bytes(const TensorInfo& tensor) const {
  return {static_cast<const char*>(base_) + header_.header_bytes + tensor.begin, tensor.bytes()};
}

void TensorFile::populate(uint64_t offset, uint64_t size) const {
  if (!mapped_ || offset >= size_) return;
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t end = offset + std::min(size, size_ - offset);
  const uint64_t begin = offset / page * page;
  char* const base = static_cast<char*>(base_);
  int rc = 0;
  while ((rc = ::madvise(base + begin, end - begin, MADV_POPULATE_READ)) != 0 && errno == EINTR) {
  }
  if (rc == 0 || errno != EINVAL) return;
  ::madvise(base + begin, end - begin, MADV_WILLNEED);
  for (uint64_t at = begin; at < end; at += page) static_cast<void>(*static_cast<volatile char*>(base + at));
}

std::string run_lock_of(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), std::free);
  if (!real) return {};
  const std::string folder = folder_of(real.get());
  const std::string above = folder_of(folder);
  const std::string lock = filename_of(above) == "checkpoints" ? above + "/.lock"
                           : filename_of(folder) == "model"    ? above + "/checkpoints/.lock"
                                                               : "";
  return !lock.empty() && ::access(lock.c_str(), F_OK) == 0 ? lock : "";
}

}  // namespace bitctl
