#include "launch/isolation.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include "base/process_id.h"
#include "base/replace_file.h"

namespace bitctl {
namespace {

constexpr const char* kMarker = "BITCTL_RUN_DIR=";

std::vector<pid_t> all_pids() {
  std::vector<pid_t> pids;
  std::unique_ptr<DIR, int (*)(DIR*)> proc(::opendir("/proc"), ::closedir);
  if (!proc) return pids;
  while (const dirent* entry = ::readdir(proc.get()))
    if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
      pids.push_back(static_cast<pid_t>(std::atoi(entry->d_name)));
  return pids;
}

// The value of BITCTL_RUN_DIR in a process's environment; empty where it has none, or is not ours to read.
std::string marker_of(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/environ", pid), std::ios::binary);
  for (std::string entry; std::getline(file, entry, '\0');)
    if (entry.starts_with(kMarker)) return entry.substr(std::string_view(kMarker).size());
  return {};
}

bool is_zombie(pid_t pid) {
  const char state = state_of(pid);
  return state == 0 || state == 'Z' || state == 'X';
}

struct Ancestry {
  pid_t parent = 0;
  pid_t session = 0;
};

std::map<pid_t, Ancestry> read_ancestry(const std::vector<pid_t>& pids) {
  std::map<pid_t, Ancestry> table;
  for (const pid_t pid : pids) {
    std::ifstream file(fmt::format("/proc/{}/stat", pid));
    std::string text((std::istreambuf_iterator<char>(file)), {});
    const size_t close = text.rfind(')');
    if (close == std::string::npos) continue;
    std::istringstream fields(text.substr(close + 1));
    char state = 0;
    pid_t group = 0;
    Ancestry entry;
    if (fields >> state >> entry.parent >> group >> entry.session) table[pid] = entry;
  }
  return table;
}

class Sweep : public Isolation {
 public:
  Sweep(std::string run_folder, pid_t ancestor) : run_folder_(std::move(run_folder)), ancestor_(ancestor) {}

  std::string level() const override { return "sweep"; }
  Json description() const override { return {{"level", "sweep"}, {"run_folder", run_folder_}}; }
  Result<int> new_attempt(int) override {
    leader_ = 0;
    return -1;
  }
  void set_leader(pid_t leader) override { leader_ = leader; }
  void exclude(pid_t helper) override { excluded_ = helper; }

  // Stopped first, so that a tree which forks while it dies loses the race.
  void kill_tree() override {
    std::set<pid_t> stopped;
    for (int pass = 0; pass < 20; ++pass) {
      bool fresh = false;
      for (const pid_t pid : pids())
        if (stopped.insert(pid).second && ::kill(pid, SIGSTOP) == 0) fresh = true;
      if (!fresh) break;
    }
    for (const pid_t pid : stopped) ::kill(pid, SIGKILL);
  }
  bool is_empty() override { return pids().empty(); }
  void forget_attempt() override { leader_ = 0; }

  std::vector<pid_t> pids() override {
    const auto everybody = all_pids();
    const auto ancestry = read_ancestry(everybody);
    std::vector<pid_t> found;
    for (const pid_t pid : everybody) {
      if (pid == ::getpid() || pid == excluded_ || is_zombie(pid)) continue;
      const auto known = ancestry.find(pid);
      const bool in_session = leader_ > 0 && known != ancestry.end() && known->second.session == leader_;
      if (in_session || descends(pid, ancestry) || marker_of(pid) == run_folder_) found.push_back(pid);
    }
    return found;
  }

 private:
  bool descends(pid_t pid, const std::map<pid_t, Ancestry>& ancestry) const {
    if (ancestor_ <= 0) return false;
    auto at = ancestry.find(pid);
    for (int depth = 0; depth < 1000 && at != ancestry.end();
         ++depth, at = ancestry.find(at->second.parent)) {
      if (at->first == excluded_) return false;
      if (at->second.parent == ancestor_) return true;
    }
    return false;
  }

  std::string run_folder_;
  pid_t ancestor_;  // the supervisor, while it is us; 0 in the writer
  pid_t leader_ = 0;
  pid_t excluded_ = 0;
};

class Cgroup : public Isolation {
 public:
  explicit Cgroup(std::string folder) : folder_(std::move(folder)) {}
  ~Cgroup() override {
    forget_attempt();
    ::rmdir(folder_.c_str());
  }

  std::string level() const override { return "cgroup"; }
  Json description() const override { return {{"level", "cgroup"}, {"folder", folder_}}; }
  void set_leader(pid_t) override {}
  void exclude(pid_t) override {}

  Result<int> new_attempt(int attempt) override {
    leaf_ = fmt::format("{}/attempt-{}", folder_, attempt);
    if (::mkdir(leaf_.c_str(), 0755) != 0) return fail_errno("cannot create cgroup " + leaf_);
    leaf_fd_ = Fd(::open(leaf_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    events_fd_ = Fd(::open((leaf_ + "/cgroup.events").c_str(), O_RDONLY | O_CLOEXEC));
    if (!leaf_fd_ || !events_fd_) return fail_errno("cannot open cgroup " + leaf_);
    return leaf_fd_.get();
  }

  void kill_tree() override {
    for (const std::string& leaf : leaves()) {
      Fd fd(::open((leaf + "/cgroup.kill").c_str(), O_WRONLY | O_CLOEXEC));
      if (fd && ::write(fd.get(), "1", 1) != 1) spdlog::warn("cannot kill cgroup {}", leaf);
    }
  }

  bool is_empty() override {
    for (const std::string& leaf : leaves()) {
      std::ifstream file(leaf + "/cgroup.events");
      for (std::string key, value; file >> key >> value;)
        if (key == "populated" && value != "0") return false;
    }
    return true;
  }
  int change_fd() const override { return events_fd_.get(); }

  std::vector<pid_t> pids() override {
    std::vector<pid_t> pids;
    for (const std::string& leaf : leaves()) {
      std::ifstream file(leaf + "/cgroup.procs");
      for (pid_t pid = 0; file >> pid;) pids.push_back(pid);
    }
    return pids;
  }

  void forget_attempt() override {
    leaf_fd_.reset();
    events_fd_.reset();
    for (const std::string& leaf : leaves()) ::rmdir(leaf.c_str());
    leaf_.clear();
  }

 private:
  // From the disk, not from memory: the writer that takes over never saw the leaf being made.
  std::vector<std::string> leaves() const {
    std::vector<std::string> found;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(folder_, error))
      if (entry.is_directory(error)) found.push_back(entry.path());
    return found;
  }

  std::string folder_;
  std::string leaf_;
  Fd leaf_fd_;
  Fd events_fd_;
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

Result<std::unique_ptr<Isolation>> make_cgroup(const std::string& run_folder) {
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

}  // namespace

Result<std::unique_ptr<Isolation>> Isolation::choose(const std::string& run_folder,
                                                     const std::string& forced) {
  if (!forced.empty() && forced != "cgroup" && forced != "sweep")
    return fail(ErrorKind::invalid, "BITCTL_ISOLATION is 'cgroup' or 'sweep', not '" + forced + "'");
  if (forced != "sweep") {
    auto cgroup = make_cgroup(run_folder);
    if (cgroup) return cgroup;
    if (forced == "cgroup")
      return fail(ErrorKind::invalid, "BITCTL_ISOLATION=cgroup: " + cgroup.error().message);
    spdlog::info("isolation by sweep: {}", cgroup.error().message);
  }
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  return std::unique_ptr<Isolation>(std::make_unique<Sweep>(run_folder, ::getpid()));
}

std::unique_ptr<Isolation> Isolation::rebuild(const Json& description) {
  if (get_text(description, "level") == "cgroup")
    return std::make_unique<Cgroup>(get_text(description, "folder"));
  return std::make_unique<Sweep>(get_text(description, "run_folder"), 0);
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
