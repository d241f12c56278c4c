#include "launch/sweep.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "base/process_id.h"
#include "launch/processes.h"

namespace bitctl {
namespace {

class SweepTree;

// Most of what /proc lists; none of them carries a marker.
bool is_kernel_thread(pid_t pid, const Ancestry& ancestry) { return pid == 2 || ancestry.parent == 2; }

// What the trees of one isolation know of each other.
struct Family {
  std::string run_folder;
  pid_t ancestor = 0;  // the supervisor, while it is us; 0 in the writer
  pid_t excluded = 0;
  std::vector<const SweepTree*> trees;
};

class SweepTree : public Tree {
 public:
  SweepTree(std::shared_ptr<Family> family, Isolation::Role role) : family_(std::move(family)), role_(role) {
    family_->trees.push_back(this);
  }
  ~SweepTree() override { std::erase(family_->trees, this); }

  void set_leader(pid_t leader) override { leader_ = leader; }
  void become_attempt() override {
    role_ = Isolation::Role::attempt;
    memory_.restart();
  }
  MemoryUse memory() const override { return memory_.since(); }

  // Stopped first, so that a tree which forks while it dies loses the race. Another pass over everybody only
  // when those that were found are gone.
  void kill() override {
    if (is_dying()) return;
    std::set<pid_t> stopped;
    for (int pass = 0; pass < 20; ++pass) {
      bool fresh = false;
      for (const pid_t pid : pids())
        if (stopped.insert(pid).second && ::kill(pid, SIGSTOP) == 0) fresh = true;
      if (!fresh) break;
    }
    for (const pid_t pid : stopped) {
      if (const auto id = process_id_of(pid)) dying_.push_back(*id);
      ::kill(pid, SIGKILL);
    }
  }

  bool is_empty() override { return !is_dying() && pids().empty(); }

  std::vector<pid_t> pids() override {
    const auto ancestry = read_ancestry(all_pids());
    std::vector<pid_t> found;
    for (const auto& [pid, own] : ancestry)
      if (pid != ::getpid() && !own.is_zombie() && !is_kernel_thread(pid, own) && holds(pid, ancestry))
        found.push_back(pid);
    return found;
  }

 private:
  bool is_dying() {
    std::erase_if(dying_, [](const ProcessId& id) { return !is_alive(id); });
    return !dying_.empty();
  }

  bool holds(pid_t pid, const std::map<pid_t, Ancestry>& ancestry) const {
    bool is_ours = false;
    auto at = ancestry.find(pid);
    for (int depth = 0; depth < 1000 && at != ancestry.end();
         ++depth, at = ancestry.find(at->second.parent)) {
      if (at->first == family_->excluded) return false;
      for (const SweepTree* tree : family_->trees)
        if (tree->leader_ > 0 && (at->first == tree->leader_ || at->second.session == tree->leader_))
          return tree == this;
      is_ours = is_ours || (family_->ancestor > 0 && at->second.parent == family_->ancestor);
    }
    if (role_ != Isolation::Role::attempt) return false;
    return is_ours || marker_of(pid) == family_->run_folder;
  }

  std::shared_ptr<Family> family_;
  Isolation::Role role_;
  pid_t leader_ = 0;
  std::vector<ProcessId> dying_;  // SIGKILL has been sent; a bare pid might be somebody else's by now
  MemoryEvidence memory_;
};

class Sweep : public Isolation {
 public:
  Sweep(std::string run_folder, pid_t ancestor)
      : family_(std::make_shared<Family>(Family{std::move(run_folder), ancestor, 0, {}})) {}

  std::string level() const override { return "sweep"; }
  Json description() const override { return {{"level", "sweep"}, {"run_folder", family_->run_folder}}; }
  void exclude(pid_t helper) override { family_->excluded = helper; }
  Result<std::unique_ptr<Tree>> new_tree(const std::string&, Role role) override {
    return std::make_unique<SweepTree>(family_, role);
  }
  std::unique_ptr<Tree> everything() override { return std::make_unique<SweepTree>(family_, Role::attempt); }

 private:
  std::shared_ptr<Family> family_;
};

}  // namespace

std::unique_ptr<Isolation> isolate_by_sweep(const std::string& run_folder) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  return std::make_unique<Sweep>(run_folder, ::getpid());
}

std::unique_ptr<Isolation> rebuild_sweep(const Json& description) {
  return std::make_unique<Sweep>(get_text(description, "run_folder"), 0);
}

}  // namespace bitctl
