#include "chat/external_editor.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>

#include "base/environment_variable.h"
#include "base/fd.h"
#include "base/read_file.h"
#include "base/replace_file.h"

extern char** environ;

namespace bitctl {
namespace {

constexpr size_t kMaxBytes = size_t{16} << 20;

std::string first_said(std::initializer_list<const char*> variables, const char* otherwise) {
  for (const char* name : variables)
    if (std::string value = environment_variable(name); !value.empty()) return value;
  return otherwise;
}

// A file of its own in the folder for temporary ones; removed with this object.
class TemporaryText {
 public:
  explicit TemporaryText(const std::string& text) {
    path_ = first_said({"TMPDIR"}, "/tmp") + "/bitctl-prompt-XXXXXX.md";
    const Fd file(::mkostemps(path_.data(), 3, O_CLOEXEC));  // mode 0600
    written_ =
        file ? write_all(file.get(), text, path_) : Status(fail_errno("cannot create " + path_, errno));
  }
  ~TemporaryText() { ::unlink(path_.c_str()); }
  TemporaryText(const TemporaryText&) = delete;

  const std::string& path() const { return path_; }
  const Status& written() const { return written_; }

 private:
  std::string path_;
  Status written_;
};

// By the shell, because people write `code --wait` into the variable. Its signals are as a new process
// expects.
Result<int> run_editor(const std::string& editor, const std::string& path) {
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::string shell = "/bin/sh", option = "-c", command = editor + " \"$1\"", name = "sh", file = path;
  const std::array<char*, 6> argv{shell.data(), option.data(), command.data(),
                                  name.data(),  file.data(),   nullptr};
  pid_t pid = 0;
  const int error = ::posix_spawn(&pid, shell.c_str(), nullptr, &attributes, argv.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) return fail_errno("cannot start " + editor, error);
  // Ctrl+Z stops the editor, and us with it: else the shell would wait for a job that waits for the editor.
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTSTP);
  ::pthread_sigmask(SIG_UNBLOCK, &stop, nullptr);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  ::pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  return status;
}

}  // namespace

Result<std::string> edit_externally(const std::string& text) {
  const TemporaryText file(text);
  if (!file.written()) return tl::unexpected(file.written().error());
  const std::string editor = first_said({"VISUAL", "EDITOR"}, "vi");
  const auto status = run_editor(editor, file.path());
  if (!status) return tl::unexpected(status.error());
  if (*status != 0)
    return fail(ErrorKind::invalid, fmt::format("{} failed; the prompt is as it was", editor));
  auto edited = read_small_file(file.path(), kMaxBytes);
  if (edited && edited->ends_with('\n')) edited->pop_back();
  return edited;
}

}  // namespace bitctl
