#include "launch/cgroup_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "base/fd.h"
#include "base/read_file.h"

namespace bitctl {
namespace {

std::vector<std::string> words_of(const std::string& path) {
  std::istringstream text(read_kernel_file(path));
  return {std::istream_iterator<std::string>(text), {}};
}

bool contains(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

std::string cgroup2_mount() {
  std::ifstream file("/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t dash = line.find(" - cgroup2 ");
    if (dash == std::string::npos) continue;
    std::istringstream fields(line);
    std::string id, parent, device, root, mount_point;
    fields >> id >> parent >> device >> root >> mount_point;
    return root == "/" ? mount_point : "";
  }
  return {};
}

Result<std::string> own_cgroup() {
  const std::string mount = cgroup2_mount();
  std::string own;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("0::")) own = line.substr(3);
  if (mount.empty() || own.empty()) return fail(ErrorKind::invalid, "no cgroup v2 is mounted");
  // Seen from inside a namespace, one outside of it.
  if (own.starts_with("/..")) return fail(ErrorKind::invalid, "our cgroup " + own + " is not mounted here");
  return own == "/" ? mount : mount + own;
}

Status write_kernel_file(const std::string& path, const std::string& text) {
  const Fd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd || ::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return fail_errno(fmt::format("cannot write '{}' to {}", text, path));
  return {};
}

uint64_t cgroup_file_value(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  uint64_t value = 0;
  for (std::string word; file >> word >> value;)
    if (word == key) return value;
  return 0;
}

std::vector<std::string> cgroup_children(const std::string& folder) {
  std::vector<std::string> found;
  std::error_code error;
  // Not a range-for: its ++ throws where the folder goes meanwhile.
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
    if (std::error_code ignored; at->is_directory(ignored)) found.push_back(at->path());
  return found;
}

std::vector<pid_t> cgroup_pids(const std::string& folder) {
  std::ifstream file(folder + "/cgroup.procs");
  std::vector<pid_t> pids{std::istream_iterator<pid_t>(file), {}};
  for (const std::string& child : cgroup_children(folder)) {
    const auto more = cgroup_pids(child);
    pids.insert(pids.end(), more.begin(), more.end());
  }
  return pids;
}

bool cgroup_is_populated(const std::string& folder) {
  return cgroup_file_value(folder + "/cgroup.events", "populated") != 0;
}

void remove_cgroup(const std::string& folder) {
  for (const std::string& child : cgroup_children(folder)) remove_cgroup(child);
  ::rmdir(folder.c_str());
}

Status move_to_cgroup(const std::string& folder, pid_t pid) {
  return write_kernel_file(folder + "/cgroup.procs", std::to_string(pid));
}

std::vector<std::string> hand_on_controllers(const std::string& folder) {
  const auto there = words_of(folder + "/cgroup.controllers");
  const auto already = words_of(folder + "/cgroup.subtree_control");
  std::vector<std::string> handed_on;
  // One by one: a controller that cannot be had must not keep the others away.
  for (const std::string name : {"memory", "cpu", "io", "pids"})
    if (contains(there, name) && !contains(already, name) &&
        write_kernel_file(folder + "/cgroup.subtree_control", "+" + name))
      handed_on.push_back(name);
  return handed_on;
}

void take_back_controllers(const std::string& folder, const std::vector<std::string>& controllers) {
  for (const std::string& name : controllers)
    static_cast<void>(write_kernel_file(folder + "/cgroup.subtree_control", "-" + name));
}

}  // namespace bitctl
