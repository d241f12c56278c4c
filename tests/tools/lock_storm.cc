// lock_storm [--acquisitions N] [--processes N] [--seed N]: processes that fight for one FileLock, fork and
// exec children while they hold it, are stopped and are killed. Each writes its pid into shared memory while
// it holds the lock: another living one found there is a double owner. --without-lock is the control. RESULT
// …; exit code 1 with a double owner.
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <random>

#include <CLI/CLI.hpp>

#include "base/lock.h"
#include "base/process_id.h"
#include "temporary_folder.h"

using namespace bitctl;

namespace {

struct Shared {
  std::atomic<pid_t> owner;
  std::atomic<pid_t> condemned;  // the one that is being killed: it gives the lock up before it is gone
  std::atomic<uint64_t> acquired, forked, executed, stopped, double_owners;
};

void leak(Shared& shared, std::mt19937& random) {
  const bool execute = random() % 2 == 0;
  ++(execute ? shared.executed : shared.forked);
  if (::fork() != 0) return;
  // A fork keeps the lock until it ends, whatever its parent does; what is executed does not have it.
  if (execute) ::execl("/bin/sleep", "sleep", "0.02", nullptr);
  ::usleep(random() % 3000);
  ::_exit(0);
}

[[noreturn]] void fight(Shared& shared, const std::string& path, uint64_t wanted, unsigned seed,
                        bool without_lock) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::signal(SIGCHLD, SIG_IGN);
  std::mt19937 random(seed);
  while (shared.acquired < wanted) {
    const auto lock =
        FileLock::acquire(path, FileLock::Mode::exclusive, std::chrono::milliseconds(random() % 100));
    if (!lock && !without_lock) continue;
    const pid_t before = shared.owner.exchange(::getpid());
    // A killed owner never took its name away.
    if (before != 0 && before != shared.condemned && ::kill(before, 0) == 0) ++shared.double_owners;
    ++shared.acquired;
    if (random() % 100 == 0) leak(shared, random);
    if (random() % 400 == 0) {
      ++shared.stopped;
      ::raise(SIGSTOP);
    }
    ::usleep(random() % 200);
    pid_t self = ::getpid();
    if (!shared.owner.compare_exchange_strong(self, 0)) ++shared.double_owners;
  }
  ::_exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t wanted = 2000;
  unsigned processes = 6, seed = 1;
  bool without_lock = false;
  CLI::App app;
  app.add_option("--acquisitions", wanted);
  app.add_option("--processes", processes);
  app.add_option("--seed", seed);
  app.add_flag("--without-lock", without_lock);
  CLI11_PARSE(app, argc, argv);

  const TemporaryFolder folder;
  auto* shared =
      new (::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
          Shared{};
  std::vector<pid_t> pids(processes);
  std::mt19937 random(seed);
  uint64_t killed = 0;
  const auto begin = [&](size_t i) {
    const unsigned own = random();
    pids[i] = ::fork();
    if (pids[i] == 0) fight(*shared, folder / "lock", wanted, own, without_lock);
  };
  for (size_t i = 0; i < pids.size(); ++i) begin(i);
  while (shared->acquired < wanted) {
    ::usleep(20000);
    for (size_t i = 0; i < pids.size(); ++i) {
      int status = 0;
      if (::waitpid(pids[i], &status, WNOHANG | WUNTRACED) == pids[i] && WIFSTOPPED(status))
        ::kill(pids[i], SIGCONT);
    }
    if (random() % 20 == 0) {
      const size_t i = random() % pids.size();
      shared->condemned = pids[i];
      ::kill(pids[i], SIGKILL);
      ::waitpid(pids[i], nullptr, 0);
      ++killed;
      begin(i);
    }
  }
  for (const pid_t pid : pids) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
  fmt::print("RESULT acquired={} forked={} executed={} stopped={} killed={} double_owners={}\n",
             shared->acquired.load(), shared->forked.load(), shared->executed.load(), shared->stopped.load(),
             killed, shared->double_owners.load());
  return shared->double_owners == 0 ? 0 : 1;
}
