#include "supervise/trainer_process.h"

#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

namespace bitctl {
namespace {

constexpr Duration kTreeCheckEvery = std::chrono::milliseconds(5);

}  // namespace

TrainerProcess::~TrainerProcess() {
  stop_watching();
  if (leader_.pidfd) loop_.unwatch(leader_.pidfd.get());
}

Status TrainerProcess::start(SpawnPlan plan, Isolation& isolation, const std::string& name,
                             Isolation::Role role) {
  // Outside a tree nobody would see it any more.
  auto tree = isolation.new_tree(name, role);
  if (!tree) return forward(std::move(tree));
  plan.cgroup = (*tree)->place();
  auto spawned = spawn(plan);
  if (!spawned) return forward(std::move(spawned));
  (*tree)->set_leader(spawned->pid);
  adopt(std::move(*spawned), std::move(*tree));
  return {};
}

void TrainerProcess::adopt(Spawned leader, std::unique_ptr<Tree> tree) {
  tree_.reset();
  leader_ = std::move(leader);
  tree_ = std::move(tree);
  loop_.watch(leader_.pidfd.get(), EPOLLIN, [this](uint32_t) { reap_leader(); });
}

std::pair<Spawned, std::unique_ptr<Tree>> TrainerProcess::release() {
  stop_watching();
  if (leader_.pidfd) loop_.unwatch(leader_.pidfd.get());
  return {std::exchange(leader_, {}), std::move(tree_)};
}

void TrainerProcess::signal(int number) {
  if (leader_.pidfd) ::syscall(SYS_pidfd_send_signal, leader_.pidfd.get(), number, nullptr, 0);
}

void TrainerProcess::reap_leader() {
  if (!leader_.pidfd) return;
  const auto status = reap(leader_.pidfd.get());
  if (!status) return;
  loop_.unwatch(leader_.pidfd.get());
  leader_.pidfd.reset();
  callbacks_.on_exit(*status);
}

void TrainerProcess::kill() {
  killing_ = true;
  kill_deadline_ = loop_.now() + unkillable_after_;
  if (const int fd = tree_->change_fd(); fd >= 0)
    loop_.watch(fd, EPOLLPRI, [this](uint32_t) { check_tree(); });
  tree_->kill();
  check_tree();
}

void TrainerProcess::check_tree() {
  if (!killing_) return;
  loop_.cancel(timer_);
  reap_leader();
  const bool over = !leader_.pidfd && tree_->is_empty();
  if (!over && loop_.now() < kill_deadline_) {
    tree_->kill();
    timer_ = loop_.call_after(kTreeCheckEvery, [this] { check_tree(); });
    return;
  }
  stop_watching();
  if (!over) return callbacks_.on_unkillable(tree_->pids());
  tree_.reset();
  callbacks_.on_gone();
}

void TrainerProcess::stop_watching() {
  if (std::exchange(killing_, false))
    if (const int fd = tree_->change_fd(); fd >= 0) loop_.unwatch(fd);
  loop_.cancel(timer_);
}

}  // namespace bitctl
