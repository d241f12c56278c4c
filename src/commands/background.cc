#include "commands/background.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "base/exit_code.h"
#include "base/fd.h"
#include "base/replace_file.h"
#include "commands/commands.h"

namespace bitctl {
namespace {

// Beside stdio. What the user's shell left open (a pipe that somebody reads to its end) is not for a process
// that stays.
void keep_only(int fd) {
  if (fd > 3) ::syscall(SYS_close_range, 3u, static_cast<unsigned>(fd - 1), 0u);
  ::syscall(SYS_close_range, static_cast<unsigned>(fd + 1), ~0u, 0u);
}

void let_go_of_the_foreground(int to_foreground, const std::string& word) {
  ::prctl(PR_SET_PDEATHSIG, 0);
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (int fd = 0; fd < 3; ++fd) ::dup2(null.get(), fd);
  // Nobody may be there to read it any more.
  static_cast<void>(write_all(to_foreground, word, "the foreground"));
}

// Everything up to the end of the file.
std::string read_word(int fd) {
  std::string word;
  char buffer[4096];
  while (true) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return word;
    word.append(buffer, static_cast<size_t>(n));
  }
}

int exit_code_of(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace

int run_in_background(const std::function<int(const LetGo& let_go)>& work,
                      const std::function<int(pid_t pid, const std::string& word)>& on_let_go) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return complain(fail_errno("cannot create a pipe").value(), kOwnFailure);
  Fd from_child(ends[0]);
  Fd to_foreground(ends[1]);
  const pid_t foreground = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return complain(fail_errno("cannot start a process").value(), kOwnFailure);
  if (child == 0) {
    from_child.reset();
    keep_only(to_foreground.get());
    ::setsid();
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != foreground) return kOwnFailure;  // it died before the line above
    return work([&](const std::string& word) {
      if (!to_foreground) return;
      let_go_of_the_foreground(to_foreground.get(), word);
      to_foreground.reset();
    });
  }
  to_foreground.reset();
  const std::string word = read_word(from_child.get());
  return word.empty() ? exit_code_of(child) : on_let_go(child, word);
}

}  // namespace bitctl
