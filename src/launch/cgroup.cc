#include "launch/cgroup.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ctime>

#include "base/fd.h"
#include "base/replace_file.h"
#include "launch/cgroup_files.h"

namespace bitctl {
namespace {

constexpr time_t kAbandonedAfter = 60;

// One leaf, or all leaves below a folder, whoever made them.
class CgroupTree : public Tree {
 public:
  explicit CgroupTree(std::string folder) : folder_(std::move(folder)), memory_(folder_) {}
  // The trainer may have made cgroups of its own inside.
  ~CgroupTree() override { remove_cgroup(folder_); }

  Status open() {
    place_ = Fd(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    events_ = Fd(::open((folder_ + "/cgroup.events").c_str(), O_RDONLY | O_CLOEXEC));
    if (!place_ || !events_) return fail_errno("cannot open cgroup " + folder_);
    return {};
  }

  int place() const override { return place_.get(); }
  int change_fd() const override { return events_.get(); }
  void kill() override {
    if (const auto status = write_kernel_file(folder_ + "/cgroup.kill", "1"); !status)
      spdlog::warn("{}", status.error().message);
  }
  bool is_empty() override { return !cgroup_is_populated(folder_); }
  bool is_frozen() override { return cgroup_file_value(folder_ + "/cgroup.events", "frozen") != 0; }
  std::vector<pid_t> pids() override { return cgroup_pids(folder_); }
  void become_attempt() override { memory_.restart(); }
  MemoryUse memory() const override { return memory_.since(); }

 private:
  std::string folder_;
  MemoryEvidence memory_;
  Fd place_;
  Fd events_;
};

class Cgroup : public Isolation {
 public:
  Cgroup(std::string level, std::string base, std::string folder, std::vector<std::string> handed_on)
      : level_(std::move(level)),
        base_(std::move(base)),
        folder_(std::move(folder)),
        handed_on_(std::move(handed_on)) {}

  // Everything is put back as it was. While somebody else is in there (the writer, which outlives us; one
  // that cannot be killed) it stays for the one who goes last.
  ~Cgroup() override {
    remove_cgroup(trees());
    take_back_controllers(folder_, {"memory", "cpu", "io", "pids"});
    take_back_controllers(base_, handed_on_);
    static_cast<void>(move_to_cgroup(base_, ::getpid()));
    remove_cgroup(folder_);
  }

  Status set_up() {
    for (const std::string& made : {folder_, folder_ + "/supervisor", trees()})
      if (::mkdir(made.c_str(), 0755) != 0) return fail_errno("cannot create cgroup " + made);
    if (::access((trees() + "/cgroup.kill").c_str(), W_OK) != 0)
      return fail(ErrorKind::invalid, "this kernel has no cgroup.kill");
    if (auto status = move_to_cgroup(folder_ + "/supervisor", ::getpid()); !status) return status;
    handed_on_ = hand_on_controllers(base_);
    hand_on_controllers(folder_);
    hand_on_controllers(trees());
    // Of the default 100 for the trees: the writer gets half of what a training gets.
    if (weighs_cpu()) static_cast<void>(write_kernel_file(folder_ + "/supervisor/cpu.weight", "50"));
    return {};
  }

  std::string level() const override { return level_; }
  Json description() const override {
    return {{"level", level_}, {"base", base_}, {"folder", folder_}, {"handed_on", handed_on_}};
  }
  bool weighs_cpu() const override { return ::access((trees() + "/cpu.weight").c_str(), W_OK) == 0; }
  void exclude(pid_t) override {}

  Result<std::unique_ptr<Tree>> new_tree(const std::string& name, Role) override {
    const std::string leaf = trees() + "/" + name;
    if (::mkdir(leaf.c_str(), 0755) != 0) return fail_errno("cannot create cgroup " + leaf);
    auto tree = std::make_unique<CgroupTree>(leaf);
    if (auto status = tree->open(); !status) return forward(std::move(status));
    return tree;
  }
  std::unique_ptr<Tree> everything() override { return std::make_unique<CgroupTree>(trees()); }

 private:
  std::string trees() const { return folder_ + "/trees"; }

  std::string level_;
  std::string base_;
  std::string folder_;
  std::vector<std::string> handed_on_;
};

// Of runs whose supervisor and writer were killed together. One that has just been made is not populated yet.
void remove_abandoned(const std::string& base) {
  for (const std::string& folder : cgroup_children(base)) {
    struct stat made {};
    if (!filename_of(folder).starts_with("bitctl-") || cgroup_is_populated(folder)) continue;
    if (::stat((folder + "/supervisor").c_str(), &made) == 0 &&
        std::time(nullptr) - made.st_ctime > kAbandonedAfter)
      remove_cgroup(folder);
  }
}

}  // namespace

Status try_cgroup() {
  const auto base = own_cgroup();
  if (!base) return tl::unexpected(base.error());
  const std::string folder = *base + "/bitctl-try-" + random_hex8();
  if (::mkdir(folder.c_str(), 0755) != 0) return fail_errno("cannot create cgroup " + folder);
  Status status;
  if (::access((folder + "/cgroup.kill").c_str(), W_OK) != 0)
    status = fail(ErrorKind::invalid, "this kernel has no cgroup.kill");
  else if (::access((*base + "/cgroup.procs").c_str(), W_OK) != 0)
    status = fail_errno("no process may be moved out of " + *base);
  ::rmdir(folder.c_str());
  return status;
}

Result<std::unique_ptr<Isolation>> isolate_by_cgroup(const std::string& run_folder,
                                                     const std::string& level) {
  const auto base = own_cgroup();
  if (!base) return tl::unexpected(base.error());
  remove_abandoned(*base);
  const std::string folder = fmt::format("{}/bitctl-{}-{}", *base, filename_of(run_folder), random_hex8());
  auto cgroup = std::make_unique<Cgroup>(level, *base, folder, std::vector<std::string>{});
  if (auto status = cgroup->set_up(); !status) return forward(std::move(status));
  return std::unique_ptr<Isolation>(std::move(cgroup));
}

std::unique_ptr<Isolation> rebuild_cgroup(const Json& description) {
  std::vector<std::string> handed_on;
  if (const auto list = description.find("handed_on"); list != description.end())
    for (const Json& name : *list)
      if (name.is_string()) handed_on.push_back(name);
  return std::make_unique<Cgroup>(get_text(description, "level"), get_text(description, "base"),
                                  get_text(description, "folder"), std::move(handed_on));
}

}  // namespace bitctl
