#include "supervise/stack_dump.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/visible_text.h"
#include "config/environment.h"
#include "watch/surroundings.h"

namespace bitctl {
namespace {

constexpr Duration kLookEvery = std::chrono::milliseconds(50);
constexpr size_t kMaxText = 16 * 1024;

off_t size_of(int fd) {
  struct stat st {};
  return ::fstat(fd, &st) == 0 ? st.st_size : 0;
}

// Whoever reaps it: as sub-reaper the supervisor takes in everybody.
bool has_ended(const Spawned& child) {
  pollfd ended{child.pidfd.get(), POLLIN, 0};
  return ::poll(&ended, 1, 0) == 1;
}

Fd make_memory() { return Fd(::memfd_create("bitctl-stacks", MFD_CLOEXEC)); }

std::string read_from(int fd, off_t from) {
  std::string text(kMaxText, '\0');
  const ssize_t n = ::pread(fd, text.data(), text.size(), from);
  text.resize(static_cast<size_t>(std::max<ssize_t>(n, 0)));
  return text;
}

}  // namespace

StackDump::~StackDump() { cancel(); }

int StackDump::signal() { return SIGRTMAX - 3; }

std::vector<int> StackDump::descriptors_for(int client, pid_t pid) {
  Source source{pid, Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))), make_memory(),
                Fd(::eventfd(0, EFD_CLOEXEC))};
  if (!source.pidfd || !source.memory || !source.request) return {};
  const Source& kept = sources_[client] = std::move(source);
  return {kept.memory.get(), kept.request.get()};
}

void StackDump::ready(int client) {
  if (const auto found = sources_.find(client); found != sources_.end()) found->second.ready = true;
}

void StackDump::forget(int client) { sources_.erase(client); }

void StackDump::take(Manner manner, const std::vector<pid_t>& others, Duration limit, Done done) {
  cancel();
  done_ = std::move(done);
  deadline_ = loop_.now() + limit;
  patience_ = loop_.now() + limit / 2;
  insists_ = manner == Manner::insist;
  signalled_ = false;
  for (auto& [client, source] : sources_) {
    source.from = size_of(source.memory.get());
    if (source.ready) ::eventfd_write(source.request.get(), 1);
  }
  for (const pid_t pid : others) {
    const bool is_connected = std::any_of(sources_.begin(), sources_.end(), [&](const auto& s) {
      return s.second.pid == pid && s.second.ready;
    });
    Source source{.pid = pid, .memory = make_memory()};
    if (is_connected || !source.memory) continue;
    SpawnPlan plan;
    plan.argv = {"py-spy", "dump", "--nonblocking", "--pid", std::to_string(pid)};
    plan.env = current_environment();
    plan.cwd = "/";
    plan.output = fmt::format("/proc/{}/fd/{}", ::getpid(), source.memory.get());
    if (auto spy = spawn(plan)) spies_.push_back(std::move(*spy));
    spied_.push_back(std::move(source));
  }
  timer_ = loop_.call_after(kLookEvery, [this] { look(); });
}

void StackDump::look() {
  if (insists_ && loop_.now() >= patience_) {
    insists_ = false;
    for (const auto& [client, source] : sources_)
      if (source.ready && size_of(source.memory.get()) == source.from)
        signalled_ |= ::syscall(SYS_pidfd_send_signal, source.pidfd.get(), signal(), nullptr, 0) == 0;
  }
  if (is_complete() || loop_.now() >= deadline_) {
    auto stacks = collect();
    const Done done = std::exchange(done_, {});
    cancel();
    return done(std::move(stacks));
  }
  timer_ = loop_.call_after(kLookEvery, [this] { look(); });
}

// Everybody who was asked has written something, and nothing more since the last look.
bool StackDump::is_complete() {
  bool complete = true;
  for (const auto& [client, source] : sources_) {
    if (!source.ready) continue;
    const off_t size = size_of(source.memory.get());
    complete = complete && size > source.from && std::exchange(sizes_[source.memory.get()], size) == size;
  }
  return complete && std::all_of(spies_.begin(), spies_.end(), has_ended);
}

std::vector<Stacks> StackDump::collect() {
  std::vector<Stacks> stacks;
  const auto add = [&](const Source& source) {
    std::string text = "threads: " + describe_threads(source.pid) + "\n";
    text += read_from(source.memory.get(), source.from);
    stacks.push_back({source.pid, visible_text(text, Newlines::keep)});
  };
  for (const auto& [client, source] : sources_)
    if (source.ready) add(source);
  for (const Source& source : spied_) add(source);
  return stacks;
}

void StackDump::cancel() {
  loop_.cancel(timer_);
  for (const Spawned& spy : spies_) ::syscall(SYS_pidfd_send_signal, spy.pidfd.get(), SIGKILL, nullptr, 0);
  spies_.clear();
  spied_.clear();
  sizes_.clear();
  done_ = {};
}

}  // namespace bitctl
