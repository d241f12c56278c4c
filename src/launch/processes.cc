#include "launch/processes.h"

#include <dirent.h>
#include <fmt/format.h>
#include <signal.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>

#include "base/process_id.h"
#include "base/read_file.h"

namespace bitctl {
namespace {

constexpr const char* kMarker = "BITCTL_RUN_DIR=";

}  // namespace

std::vector<pid_t> all_pids() {
  std::vector<pid_t> pids;
  std::unique_ptr<DIR, int (*)(DIR*)> proc(::opendir("/proc"), ::closedir);
  if (!proc) return pids;
  while (const dirent* entry = ::readdir(proc.get()))
    if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
      pids.push_back(static_cast<pid_t>(std::atoi(entry->d_name)));
  return pids;
}

std::string marker_of(pid_t pid) {
  const std::string environ = read_kernel_file(fmt::format("/proc/{}/environ", pid));
  for (size_t at = 0; at < environ.size(); at = environ.find('\0', at) + 1) {
    const std::string_view entry(environ.c_str() + at);
    if (entry.starts_with(kMarker)) return std::string(entry.substr(std::string_view(kMarker).size()));
    if (environ.find('\0', at) == std::string::npos) break;
  }
  return {};
}

bool is_zombie(pid_t pid) {
  const char state = state_of(pid);
  return state == 0 || state == 'Z' || state == 'X';
}

std::map<pid_t, Ancestry> read_ancestry(const std::vector<pid_t>& pids) {
  std::map<pid_t, Ancestry> table;
  for (const pid_t pid : pids) {
    const std::string text = read_kernel_file(fmt::format("/proc/{}/stat", pid));
    const size_t close = text.rfind(')');
    if (close == std::string::npos) continue;
    Ancestry entry;
    if (std::sscanf(text.c_str() + close + 1, " %c %d %d %d", &entry.state, &entry.parent, &entry.group,
                    &entry.session) == 4)
      table[pid] = entry;
  }
  return table;
}

StuckProcess stuck_process(pid_t pid) {
  StuckProcess process{pid, read_kernel_file(fmt::format("/proc/{}/comm", pid)), state_of(pid),
                       read_kernel_file(fmt::format("/proc/{}/wchan", pid))};
  if (process.command.ends_with('\n')) process.command.pop_back();
  if (process.state == 0) process.state = 'X';  // it is gone meanwhile
  if (process.wchan == "0") process.wchan.clear();
  return process;
}

std::string describe_unkillable(const std::vector<StuckProcess>& processes) {
  std::vector<std::string> each;
  for (const auto& process : processes)
    each.push_back(fmt::format("{} ({}, state {}{})", process.pid, process.command, process.state,
                               process.wchan.empty() ? "" : " in " + process.wchan));
  return fmt::format("cannot be killed: {}", fmt::join(each, ", "));
}

UnkillableTree unkillable_tree(const std::vector<pid_t>& pids) {
  std::vector<StuckProcess> stuck;
  Json processes = Json::array();
  for (const pid_t pid : pids) {
    const StuckProcess& process = stuck.emplace_back(stuck_process(pid));
    processes.push_back({{"pid", process.pid},
                         {"command", process.command},
                         {"state", std::string(1, process.state)},
                         {"wchan", process.wchan}});
  }
  const std::string reason = describe_unkillable(stuck);
  return {reason, {{"reason", reason}, {"processes", processes}}};
}

std::vector<pid_t> marked_processes(const std::string& run_folder) {
  std::vector<pid_t> found;
  for (const pid_t pid : all_pids())
    if (pid != ::getpid() && !is_zombie(pid) && marker_of(pid) == run_folder) found.push_back(pid);
  return found;
}

std::set<std::string> marked_run_folders() {
  std::set<std::string> folders;
  for (const pid_t pid : all_pids())
    if (!is_zombie(pid))
      if (std::string folder = marker_of(pid); !folder.empty()) folders.insert(std::move(folder));
  return folders;
}

int sweep_leftovers(const std::string& run_folder) {
  std::set<pid_t> killed;
  for (int pass = 0; pass < 250; ++pass) {
    const auto left = marked_processes(run_folder);
    if (left.empty()) break;
    for (const pid_t pid : left)
      if (::kill(pid, SIGKILL) == 0) killed.insert(pid);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return static_cast<int>(killed.size());
}

}  // namespace bitctl
