#include "checkpoint/stage.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/replace_file.h"
#include "checkpoint/arena.h"

namespace bitctl {
namespace {

constexpr uint64_t kBlock = uint64_t{4} << 20;

uint64_t whole_pages(uint64_t bytes) { return (bytes + kArenaPage - 1) / kArenaPage * kArenaPage; }

// pwrite until all of it is there. A short write may end inside a page; the direct path goes on from the
// page's start.
Status write_at(int fd, const char* data, uint64_t size, uint64_t offset, const std::string& path,
                FileOps& ops) {
  uint64_t done = 0;
  int stuck = 0;
  while (done < size) {
    const ssize_t n = ops.pwrite(fd, data + done, size - done, static_cast<off_t>(offset + done));
    if (n < 0) return fail_errno("cannot write " + path);
    const uint64_t reached = done + static_cast<uint64_t>(n);
    const uint64_t next = reached == size ? size : reached / kArenaPage * kArenaPage;
    stuck = next == done ? stuck + 1 : 0;
    if (stuck > 3) return fail_errno("cannot write " + path, EIO);
    done = next;
  }
  return {};
}

Status write_parts(int fd, const std::string& path, const std::vector<std::string_view>& parts,
                   FileOps& ops) {
  uint64_t bytes = 0;
  for (const auto& part : parts) bytes += part.size();
  // Out of space is told here, before the first byte; file systems without fallocate tell it later.
  if (bytes > 0 && ops.fallocate(fd, static_cast<off_t>(bytes)) != 0 && errno != EOPNOTSUPP &&
      errno != ENOSYS)
    return fail_errno("cannot write " + path);
  uint64_t offset = 0;
  for (const auto& part : parts) {
    const uint64_t size = whole_pages(part.size());
    for (uint64_t at = 0; at < size; at += kBlock) {
      const uint64_t block = std::min(kBlock, size - at);
      if (auto status = write_at(fd, part.data() + at, block, offset + at, path, ops); !status) return status;
    }
    offset += size;
  }
  if (ops.ftruncate(fd, static_cast<off_t>(bytes)) != 0) return fail_errno("cannot size " + path);
  if (ops.fsync(fd) != 0) return fail_errno("cannot sync " + path);
  return {};
}

}  // namespace

Status write_direct(const std::string& path, const std::vector<std::string_view>& parts, FileOps& ops) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;
  int fd = ops.open(path, kFlags | O_DIRECT, 0666);
  // tmpfs and some overlays know no O_DIRECT; they may have created the file before they refused it.
  if (fd < 0 && errno == EINVAL) {
    ops.unlink(path);
    fd = ops.open(path, kFlags, 0666);
  }
  if (fd < 0) return fail_errno("cannot create " + path);
  Status status = write_parts(fd, path, parts, ops);
  if (ops.close(fd) != 0 && status) status = fail_errno("cannot close " + path);
  return status;
}

Status write_new_file(const std::string& path, std::string_view content, FileOps& ops) {
  const int fd = ops.open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0666);
  if (fd < 0) return fail_errno("cannot create " + path);
  Status status = write_all(fd, content, path, ops);
  if (status && ops.fsync(fd) != 0) status = fail_errno("cannot sync " + path);
  if (ops.close(fd) != 0 && status) status = fail_errno("cannot close " + path);
  return status;
}

PageCopy::PageCopy(std::string_view text) : size_(text.size()) {
  const size_t allocated = std::max<size_t>(whole_pages(size_), kArenaPage);
  data_ = static_cast<char*>(std::aligned_alloc(kArenaPage, allocated));
  if (data_ == nullptr) throw std::bad_alloc();
  std::memcpy(data_, text.data(), size_);
  std::memset(data_ + size_, 0, allocated - size_);
}

PageCopy::~PageCopy() { std::free(data_); }

}  // namespace bitctl
