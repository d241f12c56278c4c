#include "base/lock.h"

#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/read_file.h"
#include "base/visible_text.h"

namespace bitctl {
namespace {

using std::chrono::milliseconds;

// True when the locked descriptor is still the file that the path names; somebody may have replaced it
// meanwhile.
bool is_same_file(int fd, const std::string& path) {
  struct stat ours {
  }, named{};
  return ::fstat(fd, &ours) == 0 && ::stat(path.c_str(), &named) == 0 && ours.st_dev == named.st_dev &&
         ours.st_ino == named.st_ino;
}

// For people only: the kernel decides who holds the lock, so a failure to write the text is no failure.
void write_holder(int fd) {
  const std::string text =
      fmt::format("{}\n{}\n{}\n", ::getpid(), start_time_of(::getpid()), command_of(::getpid()));
  if (::ftruncate(fd, 0) == 0) {
    [[maybe_unused]] const ssize_t n = ::pwrite(fd, text.data(), text.size(), 0);
  }
}

// The pauses between tries: short at first, never past the deadline.
class Patience {
 public:
  explicit Patience(Duration limit) : deadline_(std::chrono::steady_clock::now() + limit) {}

  // False once the time is up.
  bool wait() {
    const Mono now = std::chrono::steady_clock::now();
    if (now >= deadline_) return false;
    std::this_thread::sleep_for(std::min<Duration>(pause_, deadline_ - now));
    pause_ = std::min(pause_ * 2, milliseconds(50));
    return true;
  }

 private:
  Mono deadline_;
  milliseconds pause_{1};
};

int try_flock(int fd, FileLock::Mode mode) {
  const int operation = (mode == FileLock::Mode::exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB;
  int rc = 0;
  while ((rc = ::flock(fd, operation)) != 0 && errno == EINTR) {
  }
  return rc;
}

tl::unexpected<Error> held(const std::string& path, const std::string& holders) {
  return fail(ErrorKind::locked,
              fmt::format("{} is held by {}", path, holders.empty() ? "another process" : holders));
}

std::string describe(pid_t pid) {
  const std::string command = command_of(pid);
  const std::string started = start_time_of(pid);
  std::string text = fmt::format("pid {}", pid);
  if (!started.empty()) text += fmt::format(" (started {})", started);
  if (!command.empty()) text += ": " + command;
  return text;
}

std::string holders_by_kernel(const std::string& path) {
  std::string text;
  for (const pid_t pid : lock_holder_pids(path)) text += (text.empty() ? "" : ", ") + describe(pid);
  return text;
}

}  // namespace

std::vector<pid_t> lock_holder_pids(const std::string& path) {
  std::vector<pid_t> pids;
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return pids;
  // "1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF"; waiters have "->" as second field.
  const std::string wanted = fmt::format("{:02x}:{:02x}:{}", major(st.st_dev), minor(st.st_dev), st.st_ino);
  std::ifstream file("/proc/locks");
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string number, kind, advice, access, where;
    pid_t pid = 0;
    if (fields >> number >> kind >> advice >> access >> pid >> where && kind == "FLOCK" && where == wanted &&
        pid > 0)
      pids.push_back(pid);
  }
  return pids;
}

std::string lock_holders(const std::string& path) {
  if (std::string text = holders_by_kernel(path); !text.empty()) return text;
  const auto written = read_small_file(path, 4096);
  if (!written || written->empty()) return {};
  std::istringstream lines(*written);
  std::string pid, started, command;
  std::getline(lines, pid);
  std::getline(lines, started);
  std::getline(lines, command);
  return visible_text(fmt::format("pid {} (started {}): {}", pid, started, command));
}

Result<FileLock> FileLock::acquire(const std::string& path, Mode mode, Duration limit) {
  Patience patience(limit);
  const bool exclusive = mode == Mode::exclusive;
  while (true) {
    const int flags = exclusive ? O_RDWR | O_CREAT : O_RDONLY;
    Fd fd(::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0666));
    if (!fd) return fail_errno("cannot open lock " + path);
    if (try_flock(fd.get(), mode) == 0) {
      if (!is_same_file(fd.get(), path)) continue;
      if (exclusive) write_holder(fd.get());
      return FileLock(std::move(fd), path);
    }
    if (errno != EWOULDBLOCK) return fail_errno("cannot lock " + path);
    if (!patience.wait()) return held(path, lock_holders(path));
  }
}

Status lock_descriptor(int fd, FileLock::Mode mode, Duration limit, const std::string& path) {
  Patience patience(limit);
  while (try_flock(fd, mode) != 0) {
    if (errno != EWOULDBLOCK) return fail_errno("cannot lock " + path);
    if (!patience.wait()) return held(path, holders_by_kernel(path));
  }
  return {};
}

}  // namespace bitctl
