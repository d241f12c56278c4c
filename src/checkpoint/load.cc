#include "checkpoint/load.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/lock.h"
#include "base/replace_file.h"
#include "checkpoint/catalog.h"
#include "checkpoint/digest.h"

namespace bitctl {
namespace {

constexpr uint64_t kBlock = uint64_t{4} << 20;

// A file that is read once, block by block, into page-aligned memory; past the page cache where that works.
class BlockReader {
 public:
  static Result<BlockReader> open(const std::string& path, uint64_t bytes) {
    constexpr int kFlags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    Fd fd(::open(path.c_str(), kFlags | O_DIRECT));
    if (!fd && errno == EINVAL) fd = Fd(::open(path.c_str(), kFlags));
    if (!fd) return fail_errno(path);
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) return fail_errno(path);
    if (!S_ISREG(st.st_mode) || static_cast<uint64_t>(st.st_size) != bytes)
      return fail(ErrorKind::damaged,
                  fmt::format("{}: {} bytes where the manifest says {}", path, st.st_size, bytes));
    return BlockReader(std::move(fd), path, bytes);
  }

  // Reads on until at least `until` bytes of the file are in `memory` (which has room up to the next page
  // border).
  Status read_until(uint64_t until, char* memory) {
    while (have_ < until) {
      const uint64_t start = have_ / kArenaPage * kArenaPage;
      const uint64_t left = (bytes_ - start + kArenaPage - 1) / kArenaPage * kArenaPage;
      const ssize_t n = ::pread(fd_.get(), memory + start, std::min(kBlock, left), static_cast<off_t>(start));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno("cannot read " + path_);
      if (start + static_cast<uint64_t>(n) <= have_)
        return fail(ErrorKind::damaged, path_ + ": ends too early");
      have_ = start + static_cast<uint64_t>(n);
    }
    return {};
  }

 private:
  BlockReader(Fd fd, std::string path, uint64_t bytes)
      : fd_(std::move(fd)), path_(std::move(path)), bytes_(bytes) {}

  Fd fd_;
  std::string path_;
  uint64_t bytes_;
  uint64_t have_ = 0;
};

Status load_file(const std::string& path, const ManifestFile& file, BlockReader& reader, char* memory,
                 uint64_t offset, bitctl_slot* slot) {
  if (auto status = reader.read_until(file.header_bytes, memory); !status) return status;
  if (auto status = check_header({memory, file.header_bytes}, file, path); !status) return status;
  bitctl_store64(&slot->loaded, offset + file.header_bytes);
  for (const ManifestTensor& tensor : file.tensors) {
    const uint64_t end = file.header_bytes + tensor.info.end;
    if (auto status = reader.read_until(end, memory); !status) return status;
    if (digest_of({memory + file.header_bytes + tensor.info.begin, tensor.info.bytes()}) != tensor.xxh3)
      return fail(ErrorKind::damaged,
                  fmt::format("{}: tensor {} does not match its digest", path, tensor.info.name));
    bitctl_store64(&slot->loaded, offset + end);
  }
  return {};
}

}  // namespace

Result<ArenaLayout> layout_of(const Manifest& manifest, uint32_t gen) {
  Json files = Json::array();
  for (const ManifestFile& file : manifest.files) {
    if (file.header_bytes % kArenaPage != 0 || file.header_bytes > file.bytes)
      return fail(ErrorKind::damaged,
                  file.name + ": its data does not start on a page; not a file of this writer");
    files.push_back({{"name", file.name},
                     {"header_bytes", file.header_bytes},
                     {"data_bytes", file.bytes - file.header_bytes}});
  }
  return arena_layout_from({{"gen", gen}, {"files", std::move(files)}});
}

Status load_step(const StepFolder& folder, const Manifest& manifest, const ArenaLayout& layout, char* memory,
                 bitctl_slot* slot, Duration lock_limit) {
  const auto wanted = layout_of(manifest, layout.gen);
  if (!wanted) return forward(Result<ArenaLayout>(wanted));
  if (*wanted != layout)
    return fail(ErrorKind::invalid, folder.path + ": is not what the memory was made for");
  std::vector<BlockReader> readers;
  {
    auto lock = FileLock::acquire(folder_of(folder.path) + "/.lock", FileLock::Mode::shared, lock_limit);
    // Somebody's copy of a run has no lock file, and nobody who could change it.
    if (!lock && lock.error().kind != ErrorKind::not_found) return forward(std::move(lock));
    for (const ManifestFile& file : manifest.files) {
      auto reader = BlockReader::open(folder.path + "/" + file.name, file.bytes);
      if (!reader) return forward(std::move(reader));
      readers.push_back(std::move(*reader));
    }
  }
  for (size_t i = 0; i < manifest.files.size(); ++i) {
    const uint64_t offset = layout.offset_of(i);
    bitctl_store64(&slot->used[i], manifest.files[i].bytes);
    if (auto status = load_file(folder.path + "/" + manifest.files[i].name, manifest.files[i], readers[i],
                                memory + offset, offset, slot);
        !status)
      return status;
  }
  return {};
}

}  // namespace bitctl
