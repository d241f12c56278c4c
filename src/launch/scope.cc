#include "launch/scope.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/clock.h"
#include "base/install_layout.h"
#include "base/text.h"
#include "launch/cgroup.h"
#include "launch/spawn.h"

namespace bitctl {
namespace {

constexpr int kLimitMs = 5000;

std::vector<std::string> scope_command(const std::string& systemd_run) {
  return {systemd_run, "--user", "--scope", "--quiet", "--collect", "-p", "Delegate=yes", "--"};
}

std::vector<std::string> own_arguments() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return words;
}

Result<std::string> find_systemd_run() {
  auto found = find_program("systemd-run");
  if (!found) return fail(ErrorKind::not_found, "systemd-run is not installed");
  return *found;
}

// Returns only where it could not.
Status enter_scope() {
  const auto systemd_run = find_systemd_run();
  if (!systemd_run) return tl::unexpected(systemd_run.error());
  // Once systemd-run is what runs here there is no way back.
  if (auto status = try_scope(); !status) return status;
  std::error_code error;
  const std::string program = std::filesystem::read_symlink("/proc/self/exe", error);
  std::vector<std::string> words = scope_command(*systemd_run);
  const auto own = own_arguments();
  if (program.empty() || own.empty()) return fail(ErrorKind::io, "/proc/self cannot be read");
  words.push_back(program);
  words.insert(words.end(), own.begin() + 1, own.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::setenv("BITCTL_SCOPE", "entered", 1);
  ::execv(systemd_run->c_str(), argv.data());
  return fail_errno("cannot execute " + *systemd_run);
}

}  // namespace

Status try_scope() {
  const auto systemd_run = find_systemd_run();
  if (!systemd_run) return tl::unexpected(systemd_run.error());
  SpawnPlan plan;
  plan.argv = scope_command(*systemd_run);
  plan.argv.push_back("true");
  plan.env = current_environment();
  plan.cwd = std::string("/");  // GCC 12 sees an overflow in the assignment of a literal
  const Fd said(::memfd_create("bitctl-scope", MFD_CLOEXEC));
  plan.output = fmt::format("/proc/self/fd/{}", said.get());
  const auto child = spawn(plan);
  if (!child) return tl::unexpected(child.error());
  pollfd ended{child->pidfd.get(), POLLIN, 0};
  const bool in_time = ::poll(&ended, 1, kLimitMs) == 1;
  if (!in_time) {
    ::kill(child->pid, SIGKILL);
    ::poll(&ended, 1, -1);
  }
  const auto status = reap(child->pidfd.get());
  if (!in_time) return fail(ErrorKind::timeout, "systemd-run does not answer");
  if (status && *status == ExitStatus{}) return {};
  char text[200];
  const ssize_t size = ::pread(said.get(), text, sizeof text, 0);
  const std::string line = size > 0 ? split(std::string(text, static_cast<size_t>(size)), '\n')[0] : "";
  return fail(ErrorKind::invalid,
              "systemd-run gives no scope: " +
                  (line.empty() ? fmt::format("exit code {}", status ? status->as_exit_code() : 0) : line));
}

void enter_scope_if_needed() {
  const char* forced = std::getenv("BITCTL_ISOLATION");
  const std::string level = forced ? forced : "";
  if (std::getenv("BITCTL_SCOPE") != nullptr || (!level.empty() && level != "scope")) return;
  if (level.empty() && try_cgroup()) return;
  const auto status = enter_scope();
  ::setenv("BITCTL_SCOPE", status.error().message.c_str(), 1);
}

}  // namespace bitctl
