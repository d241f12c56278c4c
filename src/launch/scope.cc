#include "launch/scope.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/clock.h"
#include "base/install_layout.h"
#include "base/text.h"
#include "launch/ask_program.h"
#include "launch/cgroup.h"

namespace bitctl {
namespace {

constexpr Duration kLimit = std::chrono::seconds(5);

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
  auto command = scope_command(*systemd_run);
  command.push_back("true");
  const auto answer = ask_program(command, kLimit);
  if (!answer) return tl::unexpected(answer.error());
  if (answer->status == ExitStatus{}) return {};
  return fail(
      ErrorKind::invalid,
      "systemd-run gives no scope: " +
          (answer->line.empty() ? fmt::format("exit code {}", answer->status.as_exit_code()) : answer->line));
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
