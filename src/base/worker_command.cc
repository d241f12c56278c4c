#include "base/worker_command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spawn.h>
#include <unistd.h>

#include <csignal>
#include <string_view>

#include "base/environment_variable.h"
#include "base/fd.h"
#include "base/install_layout.h"
#include "base/text.h"

extern char** environ;

namespace bitctl {
namespace {

constexpr size_t kToldLines = 3;

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> all;
  for (const auto& string : strings) all.push_back(const_cast<char*>(string.c_str()));
  all.push_back(nullptr);
  return all;
}

struct SpawnSettings {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  SpawnSettings() {
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
  }
  ~SpawnSettings() {
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
  }
};

Result<std::string> choose_python(const std::string& folder) {
  if (const std::string chosen = environment_variable("BITCTL_PYTHON"); !chosen.empty()) {
    if (const auto found = find_program(chosen)) return *found;
    return fail(ErrorKind::not_found, fmt::format("BITCTL_PYTHON={}: no such program", chosen));
  }
  const auto on_path = find_program("python3");
  const auto found = find_python(folder);
  if (found && found != on_path) return *found;
  // No environment of the user's own: the one that bitctl was built with knows the packages.
  if (const auto own = find_program(install_layout().folder + "/../.venv/bin/python")) return *own;
  if (on_path) return *on_path;
  return fail(ErrorKind::not_found, "no Python found for the chat; set BITCTL_PYTHON to one");
}

}  // namespace

Result<WorkerCommand> worker_command(const std::string& module, const std::string& folder) {
  auto python = choose_python(folder);
  if (!python) return forward(std::move(python));
  WorkerCommand command{{*python, "-m", module}, {}};
  std::string path = install_layout().python;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view variable = *entry;
    if (variable.starts_with("PYTHONPATH="))
      path += fmt::format(":{}", variable.substr(variable.find('=') + 1));
    else
      command.environment.emplace_back(variable);
  }
  command.environment.push_back("PYTHONPATH=" + path);
  // The current folder may hold a tokenizers.py, or a folder named bitctl.
  command.environment.emplace_back("PYTHONSAFEPATH=1");
  command.environment.emplace_back("TOKENIZERS_PARALLELISM=false");
  return command;
}

Result<pid_t> spawn_worker(const WorkerCommand& command, const WorkerFds& fds) {
  SpawnSettings settings;
  const int behind = kFirstWorkerFd + static_cast<int>(fds.passed.size());
  // Out of the way of the numbers that they are to get.
  std::vector<Fd> sources;
  const auto source = [&](int fd) {
    return sources.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, behind)).get();
  };
  const auto pass = [&](int fd, int as) { ::posix_spawn_file_actions_adddup2(&settings.actions, fd, as); };
  if (fds.input < 0)
    ::posix_spawn_file_actions_addopen(&settings.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  else
    pass(source(fds.input), STDIN_FILENO);
  const int output = source(fds.output);
  pass(output, STDOUT_FILENO);
  pass(output, STDERR_FILENO);
  for (size_t i = 0; i < fds.passed.size(); ++i)
    pass(source(fds.passed[i]), kFirstWorkerFd + static_cast<int>(i));
  for (const Fd& copy : sources)
    if (!copy) return fail_errno("cannot hand a descriptor to " + command.argv[0]);
  ::posix_spawn_file_actions_addclosefrom_np(&settings.actions, behind);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  ::posix_spawnattr_setsigmask(&settings.attributes, &none);
  ::posix_spawnattr_setsigdefault(&settings.attributes, &all);
  ::posix_spawnattr_setpgroup(&settings.attributes, 0);
  ::posix_spawnattr_setflags(&settings.attributes,
                             POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  const auto argv = pointers(command.argv);
  const auto environment = pointers(command.environment);
  pid_t pid = 0;
  const int error =
      ::posix_spawn(&pid, argv[0], &settings.actions, &settings.attributes, argv.data(), environment.data());
  if (error != 0) return fail_errno(fmt::format("cannot start the worker {}", command.argv[0]), error);
  return pid;
}

std::string worker_end(const std::string& who, int status, const std::string& output) {
  std::vector<std::string> lines;
  for (auto& line : split(output, '\n'))
    if (!line.empty()) lines.push_back(std::move(line));
  if (lines.size() > kToldLines) lines.erase(lines.begin(), lines.end() - kToldLines);
  const std::string how = status >= 0 ? fmt::format("exit code {}", status) : signal_name(-status);
  return fmt::format("{} ended ({}){}{}", who, how, lines.empty() ? "" : ": ", fmt::join(lines, " | "));
}

}  // namespace bitctl
