#include "launch/cgroup.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/fd.h"
#include "base/replace_file.h"

namespace bitctl {
namespace {

// One leaf, or all leaves below a folder, whoever made them.
class CgroupTree : public Tree {
 public:
  explicit CgroupTree(std::string folder) : folder_(std::move(folder)) {}
  // The trainer may have made cgroups of its own inside.
  ~CgroupTree() override { remove(folder_); }

  Status open() {
    place_ = Fd(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    events_ = Fd(::open((folder_ + "/cgroup.events").c_str(), O_RDONLY | O_CLOEXEC));
    if (!place_ || !events_) return fail_errno("cannot open cgroup " + folder_);
    return {};
  }

  int place() const override { return place_.get(); }
  int change_fd() const override { return events_.get(); }

  void kill() override {
    const Fd fd(::open((folder_ + "/cgroup.kill").c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd || ::write(fd.get(), "1", 1) != 1) spdlog::warn("cannot kill cgroup {}", folder_);
  }

  bool is_empty() override { return event("populated").value_or("0") == "0"; }
  bool is_frozen() override { return event("frozen") == "1"; }

  std::vector<pid_t> pids() override {
    std::vector<pid_t> pids;
    collect(folder_, pids);
    return pids;
  }

 private:
  std::optional<std::string> event(std::string_view name) const {
    std::ifstream file(folder_ + "/cgroup.events");
    for (std::string key, value; file >> key >> value;)
      if (key == name) return value;
    return std::nullopt;
  }
  static std::vector<std::string> children(const std::string& folder) {
    std::vector<std::string> found;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(folder, error))
      if (entry.is_directory(error)) found.push_back(entry.path());
    return found;
  }
  static void collect(const std::string& folder, std::vector<pid_t>& pids) {
    std::ifstream file(folder + "/cgroup.procs");
    for (pid_t pid = 0; file >> pid;) pids.push_back(pid);
    for (const std::string& child : children(folder)) collect(child, pids);
  }
  static void remove(const std::string& folder) {
    for (const std::string& child : children(folder)) remove(child);
    ::rmdir(folder.c_str());
  }

  std::string folder_;
  Fd place_;
  Fd events_;
};

class Cgroup : public Isolation {
 public:
  explicit Cgroup(std::string folder) : folder_(std::move(folder)) {}
  ~Cgroup() override { ::rmdir(folder_.c_str()); }

  std::string level() const override { return "cgroup"; }
  Json description() const override { return {{"level", "cgroup"}, {"folder", folder_}}; }
  void exclude(pid_t) override {}

  Result<std::unique_ptr<Tree>> new_tree(const std::string& name, Role) override {
    const std::string leaf = folder_ + "/" + name;
    if (::mkdir(leaf.c_str(), 0755) != 0) return fail_errno("cannot create cgroup " + leaf);
    auto tree = std::make_unique<CgroupTree>(leaf);
    if (auto status = tree->open(); !status) return forward(std::move(status));
    return tree;
  }
  std::unique_ptr<Tree> everything() override { return std::make_unique<CgroupTree>(folder_); }

 private:
  std::string folder_;
};

// "/sys/fs/cgroup" or, on hybrid hosts, "/sys/fs/cgroup/unified"; found through mountinfo, never assumed.
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

std::string own_cgroup() {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("0::")) return line.substr(3);
  return {};
}

}  // namespace

Result<std::unique_ptr<Isolation>> isolate_by_cgroup(const std::string& run_folder) {
  const std::string mount = cgroup2_mount();
  const std::string own = own_cgroup();
  if (mount.empty() || own.empty()) return fail(ErrorKind::invalid, "no cgroup v2 is mounted");
  const std::string base = own == "/" ? mount : mount + own;
  const std::string folder = fmt::format("{}/bitctl-{}-{}", base, filename_of(run_folder), random_hex8());
  if (::mkdir(folder.c_str(), 0755) != 0) return fail_errno("cannot create cgroup " + folder);
  auto cgroup = std::make_unique<Cgroup>(folder);
  if (::access((folder + "/cgroup.kill").c_str(), W_OK) != 0)
    return fail(ErrorKind::invalid, "this kernel has no cgroup.kill");
  return std::unique_ptr<Isolation>(std::move(cgroup));
}

std::unique_ptr<Isolation> rebuild_cgroup(const Json& description) {
  return std::make_unique<Cgroup>(get_text(description, "folder"));
}

}  // namespace bitctl
