#include "checkpoint/load.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#include "base/lock.h"
#include "base/replace_file.h"
#include "checkpoint/catalog.h"
#include "checkpoint/digest.h"

namespace bitctl {
namespace {

constexpr uint64_t kBlock = uint64_t{4} << 20;
constexpr size_t kReaders = 3;  // one verifies while two keep the disk busy

// A file of the step, open; past the page cache where that works.
struct OpenFile {
  Fd fd;
  std::string path;
};

Result<OpenFile> open_file(const std::string& path, uint64_t bytes) {
  constexpr int kFlags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  Fd fd(::open(path.c_str(), kFlags | O_DIRECT));
  if (!fd && errno == EINVAL) fd = Fd(::open(path.c_str(), kFlags));
  if (!fd) return fail_errno(path);
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return fail_errno(path);
  if (!S_ISREG(st.st_mode) || static_cast<uint64_t>(st.st_size) != bytes)
    return fail(ErrorKind::damaged,
                fmt::format("{}: {} bytes where the manifest says {}", path, st.st_size, bytes));
  return OpenFile{std::move(fd), path};
}

bool is_direct(int fd) { return (::fcntl(fd, F_GETFL) & O_DIRECT) != 0; }

// It took O_DIRECT and refuses our blocks: larger sectors than our pages, say.
bool set_buffered(int fd) { return ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_DIRECT) == 0; }

struct Block {
  size_t file;
  uint64_t begin;  // in the file
  uint64_t end;
};

// Several threads read blocks into the slot; each block is verified in its turn, by whoever has read it and
// while it is in that one's cache, so that the watermark moves in order.
class Loading {
 public:
  Loading(const Manifest& manifest, const ArenaLayout& layout, std::vector<OpenFile> files, char* memory,
          bitctl_slot* slot)
      : manifest_(manifest), layout_(layout), files_(std::move(files)), memory_(memory), slot_(slot) {
    for (size_t i = 0; i < files_.size(); ++i) {
      const ManifestFile& file = manifest_.files[i];
      for (uint64_t begin = 0; begin < file.bytes; begin += kBlock)
        blocks_.push_back({i, begin, std::min(file.bytes, begin + kBlock)});
      std::vector<const TensorInfo*> tensors;
      for (const ManifestTensor& tensor : file.tensors) tensors.push_back(&tensor.info);
      digests_.emplace_back(std::move(tensors), memory_of(i) + file.header_bytes,
                            TensorDigests::Values::ignored);
    }
  }

  Status run() {
    std::vector<std::thread> others;
    try {
      while (others.size() + 1 < std::min(kReaders, blocks_.size())) others.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      // No more threads to be had: those that there are read it all.
    }
    work();
    for (auto& other : others) other.join();
    return status_;
  }

 private:
  char* memory_of(size_t file) const { return memory_ + layout_.offset_of(file); }

  void work() {
    for (size_t i = next_++; i < blocks_.size(); i = next_++) {
      Status status = read(blocks_[i]);
      std::unique_lock lock(mutex_);
      turn_came_.wait(lock, [&] { return turn_ == i || !status_; });
      if (!status_) return;
      status_ = status ? verify(blocks_[i]) : std::move(status);
      ++turn_;
      turn_came_.notify_all();
    }
  }

  Status read(const Block& block) const {
    const OpenFile& file = files_[block.file];
    char* memory = memory_of(block.file);
    for (uint64_t at = block.begin; at < block.end;) {
      // Whole pages: the slot has room up to the next page border.
      const uint64_t size = (block.end - at + kArenaPage - 1) / kArenaPage * kArenaPage;
      const bool direct = is_direct(file.fd.get());  // another reader may end that meanwhile
      const ssize_t n = ::pread(file.fd.get(), memory + at, size, static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EINVAL && direct && set_buffered(file.fd.get())) continue;
      if (n < 0) return fail_errno("cannot read " + file.path);
      const uint64_t reached = at + static_cast<uint64_t>(n);
      const uint64_t next = reached >= block.end ? block.end : reached / kArenaPage * kArenaPage;
      if (next == at) return fail(ErrorKind::damaged, file.path + ": ends too early");
      at = next;
    }
    return {};
  }

  // All blocks before it are verified.
  Status verify(const Block& block) {
    const ManifestFile& file = manifest_.files[block.file];
    const std::string& path = files_[block.file].path;
    if (block.end < file.header_bytes) return {};
    if (block.begin < file.header_bytes) {
      const std::string_view header(memory_of(block.file), file.header_bytes);
      if (auto status = check_header(header, file, path); !status) return status;
    }
    TensorDigests& digests = digests_[block.file];
    const size_t known = digests.done().size();
    digests.advance(block.end - file.header_bytes);
    uint64_t verified = known > 0 ? file.tensors[known - 1].info.end : 0;
    Status status;
    for (size_t i = known; i < digests.done().size() && status; ++i) {
      const ManifestTensor& tensor = file.tensors[i];
      if (digests.done()[i] == tensor.xxh3)
        verified = tensor.info.end;
      else
        status = fail(ErrorKind::damaged,
                      fmt::format("{}: tensor {} does not match its digest", path, tensor.info.name));
    }
    bitctl_store64(&slot_->loaded, layout_.offset_of(block.file) + file.header_bytes + verified);
    return status;
  }

  const Manifest& manifest_;
  const ArenaLayout& layout_;
  const std::vector<OpenFile> files_;
  char* const memory_;
  bitctl_slot* const slot_;
  std::vector<Block> blocks_;
  std::vector<TensorDigests> digests_;  // of each file
  std::atomic<size_t> next_ = 0;        // to be read
  std::mutex mutex_;
  std::condition_variable turn_came_;
  size_t turn_ = 0;  // to be verified
  Status status_;
};

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
  std::vector<OpenFile> files;
  {
    auto lock = FileLock::acquire(folder_of(folder.path) + "/.lock", FileLock::Mode::shared, lock_limit);
    // Somebody's copy of a run has no lock file, and nobody who could change it.
    if (!lock && lock.error().kind != ErrorKind::not_found) return forward(std::move(lock));
    for (const ManifestFile& file : manifest.files) {
      auto opened = open_file(folder.path + "/" + file.name, file.bytes);
      if (!opened) return forward(std::move(opened));
      files.push_back(std::move(*opened));
    }
  }
  for (size_t i = 0; i < files.size(); ++i) bitctl_store64(&slot->used[i], manifest.files[i].bytes);
  return Loading(manifest, layout, std::move(files), memory, slot).run();
}

}  // namespace bitctl
