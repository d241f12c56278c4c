#include "launch/spawn.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/text.h"

namespace bitctl {
namespace {

struct Prepared {
  const char* program;
  char* const* argv;
  char* const* envp;
  const char* cwd;
  int input;
  int output;
  const int* inherited;
  size_t inherited_count;
  int error_pipe;
  pid_t parent;
  bool dies_with_parent;
};

// What the child does between clone and exec: async-signal-safe calls only, everything was prepared before.
// The descriptors it starts from lie above every number it ends with, so no dup2 overwrites a later source.
[[noreturn]] void become(const Prepared& p) {
  const int errors = static_cast<int>(3 + p.inherited_count);
  const auto give_up = [&] {
    const int error = errno;
    [[maybe_unused]] const ssize_t n = ::write(errors, &error, sizeof error);
    ::_exit(127);
  };
  if (::dup3(p.error_pipe, errors, O_CLOEXEC) < 0) ::_exit(127);
  ::setsid();
  if (p.dies_with_parent) {
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) give_up();
    // The parent may have died before the line above.
    if (::getppid() != p.parent) ::_exit(127);
  }
  struct sigaction by_default {};
  by_default.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) ::sigaction(signal, &by_default, nullptr);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (::dup2(p.input, 0) < 0 || ::dup2(p.output, 1) < 0 || ::dup2(p.output, 2) < 0) give_up();
  for (size_t i = 0; i < p.inherited_count; ++i)
    if (::dup2(p.inherited[i], static_cast<int>(3 + i)) < 0) give_up();
  ::syscall(SYS_close_range, static_cast<unsigned>(errors + 1), ~0u, 0u);
  if (::chdir(p.cwd) != 0) give_up();
  ::execve(p.program, p.argv, p.envp);
  give_up();
  ::_exit(127);
}

// A copy of the descriptor that lies above every number the child will use.
Result<Fd> raised(int fd, size_t inherited) {
  Fd copy(::fcntl(fd, F_DUPFD_CLOEXEC, static_cast<int>(inherited) + 16));
  if (!copy) return fail_errno("cannot duplicate a descriptor");
  return copy;
}

Result<std::string> look_up(const std::string& name, const Environment& env, const std::string& cwd) {
  const auto usable = [](const std::string& path) {
    std::error_code error;
    return std::filesystem::is_regular_file(path, error);
  };
  std::vector<std::string> candidates;
  if (name.find('/') != std::string::npos) {
    candidates.push_back(name.starts_with('/') ? name : cwd + "/" + name);
  } else if (const auto path = env.find("PATH"); path != env.end()) {
    for (const auto& folder : split(path->second, ':'))
      candidates.push_back((folder.empty() ? cwd : folder) + "/" + name);
  }
  std::string found;
  for (const auto& path : candidates) {
    if (!usable(path)) continue;
    if (::access(path.c_str(), X_OK) == 0) return path;
    if (found.empty()) found = path;
  }
  if (!found.empty()) return fail(ErrorKind::invalid, "cannot execute " + found + ": no permission", EACCES);
  return fail(ErrorKind::not_found, "program not found: " + name, ENOENT);
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (auto& s : strings) out.push_back(s.data());
  out.push_back(nullptr);
  return out;
}

pid_t clone_child(int cgroup, int* pidfd) {
  clone_args args{};
  args.flags = CLONE_PIDFD;
  args.pidfd = reinterpret_cast<uint64_t>(pidfd);
  args.exit_signal = SIGCHLD;
  if (cgroup >= 0) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = static_cast<uint64_t>(cgroup);
  }
  return static_cast<pid_t>(::syscall(SYS_clone3, &args, sizeof args));
}

}  // namespace

Result<Spawned> spawn(const SpawnPlan& plan) {
  const auto program = look_up(plan.argv.at(0), plan.env, plan.cwd);
  if (!program) return tl::unexpected(program.error());
  std::vector<std::string> argv = plan.argv;
  std::vector<std::string> env;
  for (const auto& [name, value] : plan.env) env.push_back(name + "=" + value);
  const auto argv_pointers = pointers(argv);
  const auto env_pointers = pointers(env);

  const size_t count = plan.inherited.size();
  Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  Fd output(plan.output.empty()
                ? ::fcntl(null.get(), F_DUPFD_CLOEXEC, 0)
                : ::open(plan.output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (!output) return fail_errno("cannot open " + plan.output);
  int pipe_fds[2];
  if (::pipe2(pipe_fds, O_CLOEXEC) != 0) return fail_errno("cannot create a pipe");
  Fd error_in(pipe_fds[0]);
  Fd error_out(pipe_fds[1]);
  std::vector<Fd> sources;
  for (const int fd : {null.get(), output.get(), error_out.get()}) {
    auto copy = raised(fd, count);
    if (!copy) return forward(std::move(copy));
    sources.push_back(std::move(*copy));
  }
  std::vector<int> inherited;
  for (const int fd : plan.inherited) {
    auto copy = raised(fd, count);
    if (!copy) return forward(std::move(copy));
    inherited.push_back(copy->get());
    sources.push_back(std::move(*copy));
  }
  const Prepared prepared{program->c_str(), argv_pointers.data(), env_pointers.data(), plan.cwd.c_str(),
                          sources[0].get(), sources[1].get(),     inherited.data(),    count,
                          sources[2].get(), ::getpid(),           plan.dies_with_us};
  int pidfd = -1;
  const pid_t pid = clone_child(plan.cgroup, &pidfd);
  if (pid == 0) become(prepared);
  if (pid < 0) return fail_errno("cannot start " + *program);
  Spawned spawned{pid, Fd(pidfd)};
  sources.clear();
  error_out.reset();

  int error = 0;
  ssize_t n = 0;
  while ((n = ::read(error_in.get(), &error, sizeof error)) < 0 && errno == EINTR) {
  }
  if (n != static_cast<ssize_t>(sizeof error)) return spawned;
  siginfo_t info{};
  ::waitid(P_PIDFD, static_cast<id_t>(spawned.pidfd.get()), &info, WEXITED);
  if (error == ENOENT && !std::filesystem::is_directory(plan.cwd))
    return fail(ErrorKind::not_found, "no such folder to work in: " + plan.cwd, error);
  const ErrorKind kind = error == ENOENT ? ErrorKind::not_found : ErrorKind::invalid;
  return fail(kind, fmt::format("cannot execute {}: {}", *program, std::strerror(error)), error);
}

std::optional<ExitStatus> reap(int pidfd) {
  siginfo_t info{};
  rusage usage{};
  // The system call itself: libc's waitid does not hand out the usage.
  if (::syscall(SYS_waitid, P_PIDFD, pidfd, &info, WEXITED | WNOHANG, &usage) != 0 || info.si_pid == 0)
    return std::nullopt;
  return ExitStatus{info.si_code != CLD_EXITED, info.si_status,
                    static_cast<uint64_t>(usage.ru_maxrss) * 1024};
}

}  // namespace bitctl
