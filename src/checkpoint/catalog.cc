#include "checkpoint/catalog.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "base/fd.h"
#include "base/read_file.h"
#include "base/visible_text.h"
#include "checkpoint/digest.h"

namespace bitctl {
namespace {

constexpr size_t kMaxManifestBytes = size_t{1} << 30;
constexpr size_t kPiece = size_t{4} << 20;

// Reads a file from start to end once, piece by piece, beside the page cache's back as far as the kernel
// allows.
class SequentialReader {
 public:
  static Result<SequentialReader> open(const std::string& path) {
    Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (!fd) return fail_errno(path);
    ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
    return SequentialReader(std::move(fd), path);
  }
  // The digest of the next `size` bytes.
  Result<std::string> digest_next(uint64_t size) {
    Digest digest;
    if (buffer_.size() < std::min<uint64_t>(size, kPiece)) buffer_.resize(std::min<uint64_t>(size, kPiece));
    while (size > 0) {
      const ssize_t n = ::read(fd_.get(), buffer_.data(), std::min<uint64_t>(size, buffer_.size()));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno("cannot read " + path_);
      if (n == 0) return fail(ErrorKind::damaged, path_ + ": ends too early");
      digest.update(buffer_.data(), static_cast<size_t>(n));
      size -= static_cast<uint64_t>(n);
    }
    return digest.hex();
  }
  Result<std::string> read_next(uint64_t size) {
    std::string bytes(size, '\0');
    for (size_t used = 0; used < size;) {
      const ssize_t n = ::read(fd_.get(), bytes.data() + used, size - used);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno("cannot read " + path_);
      if (n == 0) return fail(ErrorKind::damaged, path_ + ": ends too early");
      used += static_cast<size_t>(n);
    }
    return bytes;
  }

 private:
  SequentialReader(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  Fd fd_;
  std::string path_;
  std::string buffer_;
};

Status check_size(const std::string& path, uint64_t bytes) {
  struct stat st {};
  if (::lstat(path.c_str(), &st) != 0)
    return errno == ENOENT ? fail(ErrorKind::damaged, path + ": is missing") : fail_errno(path);
  if (!S_ISREG(st.st_mode)) return fail(ErrorKind::damaged, path + ": not a regular file");
  if (static_cast<uint64_t>(st.st_size) != bytes)
    return fail(ErrorKind::damaged,
                fmt::format("{}: {} bytes where the manifest says {}", path, st.st_size, bytes));
  return {};
}

Status verify_file(const std::string& path, const ManifestFile& file) {
  auto reader = SequentialReader::open(path);
  if (!reader) return forward(std::move(reader));
  auto head = reader->read_next(file.header_bytes);
  if (!head) return forward(std::move(head));
  if (auto status = check_header(*head, file, path); !status) return status;
  for (const ManifestTensor& tensor : file.tensors) {
    auto digest = reader->digest_next(tensor.info.bytes());
    if (!digest) return forward(std::move(digest));
    if (*digest != tensor.xxh3)
      return fail(ErrorKind::damaged,
                  fmt::format("{}: tensor {} does not match its digest", path, tensor.info.name));
  }
  return {};
}

Status verify_side_file(const std::string& path, const ManifestSideFile& file) {
  auto reader = SequentialReader::open(path);
  if (!reader) return forward(std::move(reader));
  auto digest = reader->digest_next(file.bytes);
  if (!digest) return forward(std::move(digest));
  if (*digest != file.xxh3) return fail(ErrorKind::damaged, path + ": does not match its digest");
  return {};
}

}  // namespace

std::string step_folder_name(uint64_t step) { return fmt::format("step-{:09}", step); }

std::optional<uint64_t> step_of_folder_name(const std::string& name) {
  if (!name.starts_with("step-") || name.size() < 14 || name.size() > 24) return std::nullopt;
  uint64_t step = 0;
  for (const char c : name.substr(5)) {
    if (c < '0' || c > '9' || step > (UINT64_MAX - 9) / 10) return std::nullopt;
    step = step * 10 + static_cast<uint64_t>(c - '0');
  }
  return step_folder_name(step) == name ? std::optional(step) : std::nullopt;
}

std::vector<StepFolder> step_folders(const std::string& checkpoints) {
  std::vector<StepFolder> folders;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(checkpoints, error))
    if (const auto step = step_of_folder_name(entry.path().filename()))
      folders.push_back({*step, entry.path()});
  std::sort(folders.begin(), folders.end(), [](const auto& a, const auto& b) { return a.step > b.step; });
  return folders;
}

std::optional<StepFolder> newest_finite_step(const std::string& checkpoints, uint64_t before,
                                             std::vector<StepFolder>& newer) {
  for (StepFolder& folder : step_folders(checkpoints)) {
    const auto manifest = folder.step < before ? inspect_step(folder) : fail(ErrorKind::invalid, "too new");
    if (manifest && manifest->non_finite.empty()) return std::move(folder);
    newer.push_back(std::move(folder));
  }
  return std::nullopt;
}

Result<Manifest> inspect_step(const StepFolder& folder) {
  const std::string path = folder.path + "/" + kManifestName;
  const auto bytes = read_small_file(path, kMaxManifestBytes);
  if (!bytes) {
    if (bytes.error().kind == ErrorKind::not_found)
      return fail(ErrorKind::damaged, folder.path + ": no manifest.json; the save did not end");
    return tl::unexpected(bytes.error());
  }
  auto manifest = parse_manifest(*bytes, path);
  if (!manifest) return manifest;
  if (manifest->step != folder.step)
    return fail(ErrorKind::damaged, fmt::format("{}: written for step {}", path, manifest->step));
  for (const ManifestFile& file : manifest->files)
    if (auto status = check_size(folder.path + "/" + file.name, file.bytes); !status)
      return forward(std::move(status));
  for (const ManifestSideFile& file : manifest->side_files)
    if (auto status = check_size(folder.path + "/" + file.name, file.bytes); !status)
      return forward(std::move(status));
  return manifest;
}

Status check_header(std::string_view head, const ManifestFile& file, const std::string& path) {
  if (digest_of(head) != file.header_xxh3)
    return fail(ErrorKind::damaged, path + ": the header does not match its digest");
  const auto header = parse_header(head, file.bytes);
  if (!header) return fail(ErrorKind::damaged, path + ": " + header.error().message);
  if (header->tensors.size() != file.tensors.size())
    return fail(ErrorKind::damaged, path + ": another number of tensors than the manifest lists");
  for (size_t i = 0; i < file.tensors.size(); ++i)
    if (!(header->tensors[i] == file.tensors[i].info))
      return fail(ErrorKind::damaged, fmt::format("{}: tensor {} differs from the manifest's table", path,
                                                  visible_text(file.tensors[i].info.name)));
  return {};
}

Result<Manifest> verify_step(const StepFolder& folder) {
  auto manifest = inspect_step(folder);
  if (!manifest) return manifest;
  for (const ManifestFile& file : manifest->files)
    if (auto status = verify_file(folder.path + "/" + file.name, file); !status)
      return forward(std::move(status));
  for (const ManifestSideFile& file : manifest->side_files)
    if (auto status = verify_side_file(folder.path + "/" + file.name, file); !status)
      return forward(std::move(status));
  return manifest;
}

Result<TensorHeader> verify_tensor_file(const std::string& path) {
  struct stat st {};
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return fail_errno(path);
  if (::fstat(fd.get(), &st) != 0) return fail_errno(path);
  if (!S_ISREG(st.st_mode)) return fail(ErrorKind::damaged, path + ": not a regular file");
  const auto file_bytes = static_cast<uint64_t>(st.st_size);
  const auto read = [&](std::string& into) {
    size_t used = 0;
    while (used < into.size()) {
      const ssize_t n = ::pread(fd.get(), into.data() + used, into.size() - used, static_cast<off_t>(used));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      used += static_cast<size_t>(n);
    }
    into.resize(used);
  };
  std::string head(8, '\0');
  read(head);
  const auto size = header_size(head, file_bytes);
  if (!size) return fail(ErrorKind::damaged, path + ": " + size.error().message);
  head.assign(*size, '\0');
  read(head);
  auto header = parse_header(head, file_bytes);
  if (!header) return fail(ErrorKind::damaged, path + ": " + header.error().message);
  return header;
}

}  // namespace bitctl
