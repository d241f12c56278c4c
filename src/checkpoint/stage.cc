#include "checkpoint/stage.h"

#include <fmt/format.h>
#include <linux/ioprio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/replace_file.h"
#include "checkpoint/arena.h"

namespace bitctl {
namespace {

constexpr uint64_t kBlock = uint64_t{4} << 20;
constexpr auto kLookAgain = std::chrono::milliseconds(20);
constexpr size_t kBlocksForThreads = 8;  // below that the caller's own thread is done before others are there

uint64_t whole_pages(uint64_t bytes) { return (bytes + kArenaPage - 1) / kArenaPage * kArenaPage; }

// For the calling thread alone, which cannot take it back without rights.
void become_idle() {
  ::setpriority(PRIO_PROCESS, 0, 19);
  ::syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
}

}  // namespace

struct Stage::File {
  std::string path;
  uint64_t bytes = 0;
  int fd = -1;
  std::atomic<bool> direct = true;
};

struct Stage::Block {
  File* file;
  const char* from;
  uint64_t bytes;   // whole pages
  uint64_t offset;  // in the file
  size_t number;    // of the file
  uint64_t seen;    // bytes of the file's data, this block included
};

// All blocks of a write in order, and its first failure.
class Stage::Blocks {
 public:
  Blocks(std::vector<Block> blocks, const StageWork& work) : blocks_(std::move(blocks)), work_(work) {}

  size_t count() const { return blocks_.size(); }
  bool quiet() const { return work_.quiet && work_.quiet(); }

  std::optional<Block> next() {
    const std::lock_guard lock(mutex_);
    if (!status_ || at_ == blocks_.size()) return std::nullopt;
    const Block& block = blocks_[at_++];
    if (at_ == blocks_.size()) ended_.notify_all();
    if (work_.look) work_.look(block.number, block.seen);
    return block;
  }
  // Nothing is left to be taken; waits so long for it.
  bool at_end(Duration limit = Duration::zero()) {
    std::unique_lock lock(mutex_);
    return ended_.wait_for(lock, limit, [this] { return !status_ || at_ == blocks_.size(); });
  }
  void fail(Status status) {
    const std::lock_guard lock(mutex_);
    if (status_) status_ = std::move(status);
    ended_.notify_all();
  }
  Status status() const { return status_; }

 private:
  const std::vector<Block> blocks_;
  const StageWork& work_;
  std::mutex mutex_;
  std::condition_variable ended_;
  size_t at_ = 0;
  Status status_;
};

Stage::Stage(std::string path, FileOps& ops) : path_(std::move(path)), ops_(ops) {}

Stage::~Stage() {
  for (auto& file : files_)
    if (file->fd >= 0) ops_.close(file->fd);
}

Status Stage::create(const StageFile& from) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;
  auto file = std::make_unique<File>();
  file->path = path_ + "/" + from.name;
  file->bytes = from.header.size() + from.data.size();
  file->fd = ops_.open(file->path, kFlags | O_DIRECT, 0666);
  // tmpfs and some overlays know no O_DIRECT; they may have created the file before they refused it.
  if (file->fd < 0 && errno == EINVAL) {
    ops_.unlink(file->path);
    file->direct = false;
    file->fd = ops_.open(file->path, kFlags, 0666);
  }
  if (file->fd < 0) return fail_errno("cannot create " + file->path);
  files_.push_back(std::move(file));
  // File systems without fallocate tell later that they are full.
  const File& made = *files_.back();
  if (made.bytes > 0 && ops_.fallocate(made.fd, static_cast<off_t>(made.bytes)) != 0 && errno != EOPNOTSUPP &&
      errno != ENOSYS)
    return fail_errno("cannot write " + made.path);
  return {};
}

void Stage::add_blocks(File& file, const StageFile& from, size_t number, std::vector<Block>& list) {
  const auto add = [&](std::string_view part, uint64_t offset, bool is_data) {
    for (uint64_t at = 0; at < part.size(); at += kBlock) {
      const uint64_t bytes = std::min<uint64_t>(kBlock, part.size() - at);
      list.push_back(
          {&file, part.data() + at, whole_pages(bytes), offset + at, number, is_data ? at + bytes : 0});
    }
  };
  add(from.header, 0, false);
  add(from.data, from.header.size(), true);
}

Status Stage::work_off(std::vector<Block> list, const StageWork& work,
                       const std::function<Status(const Block&)>& handle) {
  Blocks blocks(std::move(list), work);
  // As long as there are blocks, and it stays quiet or busy.
  const auto work_on = [&](bool quiet, bool whatever) {
    while (whatever || blocks.quiet() == quiet) {
      const auto block = blocks.next();
      if (!block) return;
      if (auto status = handle(*block); !status) blocks.fail(std::move(status));
    }
  };
  if (blocks.count() < kBlocksForThreads) work_on(false, true);
  std::vector<std::thread> others;
  std::atomic<int> idle_ones = 0;
  while (!blocks.at_end()) {
    const bool quiet = blocks.quiet();
    bool alone = false;
    try {
      others.emplace_back([&, quiet] {
        if (quiet) become_idle();
        work_on(quiet, false);
        if (quiet) --idle_ones;
      });
      if (quiet) ++idle_ones;
    } catch (const std::system_error&) {
      alone = true;  // the trainer has used up all threads that there may be
    }
    if (!quiet || alone) work_on(quiet, false);
    // An idle worker may not be given the processor for long; we are, and see first that the trainer is dead.
    // Or it has seen so and left, and another trainer lives by now.
    while (quiet && idle_ones > 0 && !blocks.at_end(kLookAgain) && blocks.quiet()) {
    }
  }
  for (auto& other : others) other.join();
  return blocks.status();
}

Status Stage::write(const std::vector<StageFile>& files, const StageWork& work) {
  std::vector<Block> list;
  const size_t first = files_.size();
  for (size_t i = 0; i < files.size(); ++i) {
    if (auto status = create(files[i]); !status) return status;
    add_blocks(*files_.back(), files[i], i, list);
  }
  auto status = work_off(std::move(list), work, [this](const Block& block) { return write_block(block); });
  if (!status) return status;
  for (size_t i = first; i < files_.size(); ++i) {
    const File& file = *files_[i];
    // The last block went to the end of its page.
    if (file.bytes % kArenaPage != 0 && ops_.ftruncate(file.fd, static_cast<off_t>(file.bytes)) != 0)
      return fail_errno("cannot size " + file.path);
  }
  return {};
}

Status Stage::open_standing(const StageFile& from, const std::string& standing) {
  constexpr int kFlags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK;
  auto file = std::make_unique<File>();
  file->path = standing;
  file->bytes = from.header.size() + from.data.size();
  file->fd = ops_.open(standing, kFlags | O_DIRECT, 0);
  if (file->fd < 0 && errno == EINVAL) {
    file->direct = false;
    file->fd = ops_.open(standing, kFlags, 0);
  }
  if (file->fd < 0) return fail_errno(standing);
  files_.push_back(std::move(file));
  const File& opened = *files_.back();
  struct stat st {};
  if (::fstat(opened.fd, &st) != 0) return fail_errno(standing);
  if (!S_ISREG(st.st_mode) || static_cast<uint64_t>(st.st_size) != opened.bytes)
    return fail(ErrorKind::damaged, standing + ": not a file of that size");
  return {};
}

Status Stage::link(const StageFile& from, const std::string& standing, const StageWork& work) {
  const size_t before = files_.size();
  Status status = open_standing(from, standing);
  if (status) {
    std::vector<Block> list;
    add_blocks(*files_.back(), from, 0, list);
    status = work_off(std::move(list), work, [this](const Block& block) { return compare_block(block); });
  }
  if (status && ops_.link(standing, path_ + "/" + from.name) != 0)
    status = fail_errno("cannot link " + standing);
  // It stays open where it is linked: synced like the rest, since it may be a copy that nobody has synced.
  if (!status && files_.size() > before) {
    ops_.close(files_.back()->fd);
    files_.pop_back();
  }
  return status;
}

// pwrite until all of it is there. A short write may end inside a page; the direct path goes on from the
// page's start.
Status Stage::write_block(const Block& block) {
  File& file = *block.file;
  uint64_t done = 0;
  int stuck = 0;
  while (done < block.bytes) {
    const bool direct = file.direct;
    const ssize_t n =
        ops_.pwrite(file.fd, block.from + done, block.bytes - done, static_cast<off_t>(block.offset + done));
    if (n < 0 && errno == EINVAL && direct) {
      if (auto status = set_buffered(file); !status) return status;
      continue;
    }
    if (n < 0) return fail_errno("cannot write " + file.path);
    const uint64_t reached = done + static_cast<uint64_t>(n);
    const uint64_t next = reached == block.bytes ? reached : reached / kArenaPage * kArenaPage;
    stuck = next == done ? stuck + 1 : 0;
    if (stuck > 3) return fail_errno("cannot write " + file.path, EIO);
    done = next;
  }
  return file.direct ? Status() : write_out(file, block);
}

// What went through the page cache leaves it again: it would push out what the training reads, and a fsync at
// the end would find all of it to do. An error told here is told by no fsync any more.
Status Stage::write_out(File& file, const Block& block) {
  constexpr unsigned kAndWait =
      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  const auto offset = static_cast<off_t>(block.offset);
  const auto bytes = static_cast<off_t>(block.bytes);
  if (ops_.sync_file_range(file.fd, offset, bytes, kAndWait) != 0 && errno != EINVAL && errno != ENOSYS &&
      errno != ESPIPE)
    return fail_errno("cannot write " + file.path);
  ops_.fadvise(file.fd, offset, bytes, POSIX_FADV_DONTNEED);
  return {};
}

Status Stage::compare_block(const Block& block) {
  File& file = *block.file;
  const uint64_t wanted = std::min(block.bytes, file.bytes - block.offset);
  const auto offset = static_cast<off_t>(block.offset);
  const auto bytes = static_cast<off_t>(block.bytes);
  // Of each worker, for all its blocks.
  thread_local const std::unique_ptr<char, void (*)(void*)> there(
      static_cast<char*>(std::aligned_alloc(kArenaPage, kBlock)), std::free);
  if (!there) return fail_errno("cannot read " + file.path, ENOMEM);
  for (uint64_t done = 0; done < wanted;) {
    const bool direct = file.direct;
    if (!direct) {
      // What the page cache holds is no proof of what the disk does; and nothing is to be read ahead into it.
      ops_.fadvise(file.fd, offset, bytes, POSIX_FADV_DONTNEED);
      ops_.fadvise(file.fd, offset, bytes, POSIX_FADV_RANDOM);
    }
    const ssize_t n =
        ops_.pread(file.fd, there.get() + done, block.bytes - done, static_cast<off_t>(block.offset + done));
    if (n < 0 && errno == EINVAL && direct) {
      if (auto status = set_buffered(file); !status) return status;
      continue;
    }
    if (n < 0) return fail_errno("cannot read " + file.path);
    const uint64_t reached = done + static_cast<uint64_t>(n);
    const uint64_t next = reached >= wanted ? wanted : reached / kArenaPage * kArenaPage;
    if (next == done) return fail(ErrorKind::damaged, file.path + ": ends too early");
    done = next;
  }
  if (!file.direct) ops_.fadvise(file.fd, offset, bytes, POSIX_FADV_DONTNEED);
  if (std::memcmp(there.get(), block.from, wanted) == 0) return {};
  return fail(ErrorKind::damaged, fmt::format("{}: holds other bytes from {} on", file.path, block.offset));
}

// It took O_DIRECT and now refuses our blocks: larger sectors than our pages, say.
Status Stage::set_buffered(File& file) {
  if (ops_.set_status_flags(file.fd, 0) != 0) return fail_errno("cannot use " + file.path);
  file.direct = false;
  return {};
}

Status Stage::sync() {
  for (auto& file : files_)
    if (ops_.fsync(file->fd) != 0) return fail_errno("cannot sync " + file->path);
  for (auto& file : files_)
    if (ops_.close(std::exchange(file->fd, -1)) != 0) return fail_errno("cannot close " + file->path);
  return sync_folder(path_, ops_);
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

void PageCopy::swap(PageCopy& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
}

PageCopy::~PageCopy() { std::free(data_); }

}  // namespace bitctl
