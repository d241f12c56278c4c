#include "safetensors/tensor_stream.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace bitctl {

Result<TensorStream> TensorStream::open(const std::string& path) {
  TensorStream stream(Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)),
                      path);
  if (!stream.fd_) return fail_errno(path);
  struct stat st {};
  if (::fstat(stream.fd_.get(), &st) != 0) return fail_errno(path);
  if (!S_ISREG(st.st_mode)) return fail(ErrorKind::damaged, path + ": not a regular file");
  const auto file_bytes = static_cast<uint64_t>(st.st_size);
  const auto damaged = [&](const Error& error) {
    return fail(ErrorKind::damaged, path + ": " + error.message);
  };
  stream.head_.resize(std::min<uint64_t>(8, file_bytes));
  if (auto read = stream.read_at(0, stream.head_.size(), stream.head_.data()); !read)
    return forward(std::move(read));
  const auto size = header_size(stream.head_, file_bytes);
  if (!size) return damaged(size.error());
  stream.head_.resize(*size);
  if (auto read = stream.read_at(0, *size, stream.head_.data()); !read) return forward(std::move(read));
  auto header = parse_header(stream.head_, file_bytes);
  if (!header) return damaged(header.error());
  stream.header_ = std::move(*header);
  return stream;
}

Status TensorStream::read(uint64_t offset, uint64_t size, char* to) const {
  return read_at(header_.header_bytes + offset, size, to);
}

Status TensorStream::read_at(uint64_t offset, uint64_t size, char* to) const {
  for (uint64_t done = 0; done < size;) {
    const ssize_t n = ::pread(fd_.get(), to + done, size - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("cannot read " + path_);
    if (n == 0) return fail(ErrorKind::damaged, path_ + ": ends too early");
    done += static_cast<uint64_t>(n);
  }
  // Pages that somebody maps stay.
  ::posix_fadvise(fd_.get(), static_cast<off_t>(offset), static_cast<off_t>(size), POSIX_FADV_DONTNEED);
  return {};
}

}  // namespace bitctl
