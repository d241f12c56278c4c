#include "launch/group.h"

#include <signal.h>

#include "launch/processes.h"

namespace bitctl {
namespace {

class GroupTree : public Tree {
 public:
  void set_leader(pid_t leader) override { leader_ = leader; }
  void kill() override {
    if (leader_ > 0) ::kill(-leader_, SIGKILL);
  }
  bool is_empty() override { return pids().empty(); }
  std::vector<pid_t> pids() override {
    std::vector<pid_t> found;
    if (leader_ <= 0) return found;
    for (const auto& [pid, ancestry] : read_ancestry(all_pids()))
      if (ancestry.group == leader_ && !ancestry.is_zombie()) found.push_back(pid);
    return found;
  }

 private:
  pid_t leader_ = 0;  // of the session, and so of the group
};

class Group : public Isolation {
 public:
  std::string level() const override { return "group"; }
  Json description() const override { return {{"level", "group"}}; }
  void exclude(pid_t) override {}
  Result<std::unique_ptr<Tree>> new_tree(const std::string&, Role) override {
    return std::make_unique<GroupTree>();
  }
  std::unique_ptr<Tree> everything() override { return std::make_unique<GroupTree>(); }
};

}  // namespace

std::unique_ptr<Isolation> isolate_by_group() { return std::make_unique<Group>(); }

}  // namespace bitctl
