#include "doctor/disk.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <memory>

#include "base/fd.h"
#include "base/replace_file.h"
#include "base/text.h"
#include "checkpoint/folders.h"

namespace bitctl {
namespace {

using enum Finding::Verdict;
using std::chrono::seconds;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kChunk = 4 * kMiB;
constexpr uint64_t kMostWritten = 64 * kMiB;
constexpr double kSlow = 30.0 * kMiB;  // bytes a second

Finding failed(const std::string& check, const std::string& what) {
  return {failure, check, fmt::format("{}: {}", what, std::strerror(errno)), ""};
}

std::unique_ptr<char, decltype(&::free)> aligned_chunk() {
  std::unique_ptr<char, decltype(&::free)> chunk(static_cast<char*>(std::aligned_alloc(4096, kChunk)),
                                                 &::free);
  std::memset(chunk.get(), 0x5a, kChunk);
  return chunk;
}

}  // namespace

Result<ScratchFolder> ScratchFolder::make(const std::string& parent) {
  std::string name = parent + "/.bitctl-doctor-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) return fail_errno("cannot write in " + parent);
  return ScratchFolder(name);
}

ScratchFolder::~ScratchFolder() {
  if (!path_.empty()) static_cast<void>(remove_tree(path_));
}

Finding space_finding(uint64_t available, uint64_t checkpoint) {
  Finding finding{ok, "space", format_bytes(available) + " free", ""};
  if (checkpoint > 0) finding.text += fmt::format(", a checkpoint takes {}", format_bytes(checkpoint));
  // A save stands beside what it replaces.
  const uint64_t needed = checkpoint > 0 ? checkpoint : 64 * kMiB;
  if (available < needed)
    finding.verdict = failure;
  else if (available < (checkpoint > 0 ? 3 * checkpoint : 1024 * kMiB))
    finding.verdict = warn;
  if (finding.verdict != ok)
    finding.mend = "free some space, or lower checkpoints.keep_last, or keep the runs elsewhere";
  return finding;
}

Finding check_space(const std::string& folder, uint64_t checkpoint) {
  struct statvfs info {};
  if (::statvfs(folder.c_str(), &info) != 0) return failed("space", "cannot look at " + folder);
  return space_finding(info.f_bavail * info.f_frsize, checkpoint);
}

Finding speed_finding(double bytes_per_second, uint64_t checkpoint) {
  Finding finding{ok, "disk speed", fmt::format("{:.0f} MB/s written and synced", bytes_per_second / 1e6),
                  ""};
  if (checkpoint > 0)
    finding.text += fmt::format(
        ", {} a checkpoint",
        format_duration(from_seconds(static_cast<double>(checkpoint) / std::max(bytes_per_second, 1.0))));
  if (bytes_per_second < kSlow) {
    finding.verdict = warn;
    finding.mend = "checkpoints will be slow here; keep the runs on a local disk";
  }
  return finding;
}

Finding check_speed(const std::string& scratch, uint64_t checkpoint) {
  const std::string path = scratch + "/speed";
  Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_DIRECT, 0600));
  if (!fd) fd = Fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  if (!fd) return failed("disk speed", "cannot create " + path);
  const auto chunk = aligned_chunk();
  const Mono begun = std::chrono::steady_clock::now();
  uint64_t written = 0;
  while (written < kMostWritten && std::chrono::steady_clock::now() - begun < seconds(1)) {
    const ssize_t size = ::write(fd.get(), chunk.get(), kChunk);
    if (size <= 0) return failed("disk speed", "cannot write " + path);
    written += static_cast<uint64_t>(size);
  }
  if (::fdatasync(fd.get()) != 0) return failed("disk speed", "cannot sync " + path);
  const double took = as_seconds(std::chrono::steady_clock::now() - begun);
  ::unlink(path.c_str());
  return speed_finding(static_cast<double>(written) / std::max(took, 1e-6), checkpoint);
}

Finding check_direct_io(const std::string& scratch) {
  const std::string path = scratch + "/direct";
  const Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_DIRECT, 0600));
  const auto chunk = aligned_chunk();
  if (fd && ::write(fd.get(), chunk.get(), 4096) == 4096)
    return {ok, "direct I/O", "checkpoints go past the page cache", ""};
  if (errno == EINVAL)
    return {warn, "direct I/O", "not on this file system: checkpoints fill the page cache",
            "nothing is lost by it; a local ext4 or xfs can"};
  return failed("direct I/O", "cannot write " + path);
}

Finding check_locks(const std::string& scratch, int (*lock)(int fd, int operation)) {
  const std::string path = scratch + "/lock";
  const Fd ours(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  int to_child[2];
  int to_parent[2];
  if (!ours || ::pipe2(to_child, O_CLOEXEC) != 0) return failed("locks", "cannot create " + path);
  const Fd child_reads(to_child[0]);
  Fd we_write(to_child[1]);
  if (::pipe2(to_parent, O_CLOEXEC) != 0) return failed("locks", "cannot create a pipe");
  const Fd we_read(to_parent[0]);
  Fd child_writes(to_parent[1]);
  // Other threads run: nothing but system calls in the child. It goes when the pipe's other end is closed.
  const pid_t child = ::fork();
  if (child < 0) return failed("locks", "cannot start a process");
  if (child == 0) {
    ::close(to_child[1]);
    const int theirs = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    char said = lock(theirs, LOCK_EX | LOCK_NB) == 0 ? 'y' : 'n';
    [[maybe_unused]] ssize_t n = ::write(to_parent[1], &said, 1);
    n = ::read(to_child[0], &said, 1);
    ::_exit(0);
  }
  child_writes.reset();
  char said = 'n';
  const bool heard = ::read(we_read.get(), &said, 1) == 1;
  const bool kept_out = lock(ours.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  const bool freed = lock(ours.get(), LOCK_SH | LOCK_NB) == 0;
  const char* mend = "keep the runs on another file system: two writers could damage each other's files here";
  if (!heard || said != 'y') return {failure, "locks", "this file system has no flock", mend};
  if (!kept_out) return {failure, "locks", "flock keeps nobody out here", mend};
  if (!freed) return {failure, "locks", "a dead process keeps its lock", mend};
  return {ok, "locks", "flock keeps others out and is free at its holder's death", ""};
}

Finding check_rename(const std::string& scratch) {
  const std::string path = scratch + "/renamed";
  if (const auto status = replace_file(path, "1"); !status)
    return {failure, "rename", status.error().message, "keep the runs on another file system"};
  return {ok, "rename", "a file is replaced whole, and the folder synced", ""};
}

Finding check_file_time(const std::string& scratch, Wall now) {
  const std::string path = scratch + "/time";
  const Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  struct stat info {};
  if (!fd || ::write(fd.get(), "1", 1) != 1 || ::fstat(fd.get(), &info) != 0)
    return failed("file times", "cannot write " + path);
  const int64_t off = info.st_mtim.tv_sec - unix_seconds(now);
  if (std::abs(off) > 2)
    return {warn, "file times", fmt::format("the file system's clock is {} s off ours", off),
            "synchronise the file server's clock"};
  return {ok, "file times", "the file system's clock is ours", ""};
}

}  // namespace bitctl
