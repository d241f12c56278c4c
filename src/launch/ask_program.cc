#include "launch/ask_program.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/text.h"

namespace bitctl {
namespace {

constexpr int kDeathMs = 1000;

}  // namespace

Result<Answer> ask_program(const std::vector<std::string>& argv, Duration limit) {
  const Fd said(::memfd_create("bitctl-answer", MFD_CLOEXEC));
  SpawnPlan plan;
  plan.argv = argv;
  plan.env = current_environment();
  plan.cwd = std::string("/");  // GCC 12 sees an overflow in the assignment of a literal
  plan.output = fmt::format("/proc/self/fd/{}", said.get());
  const auto child = spawn(plan);
  if (!child) return tl::unexpected(child.error());
  pollfd ended{child->pidfd.get(), POLLIN, 0};
  const auto limit_ms = std::chrono::duration_cast<std::chrono::milliseconds>(limit).count();
  const bool in_time = ::poll(&ended, 1, static_cast<int>(limit_ms)) == 1;
  if (!in_time) {
    ::kill(child->pid, SIGKILL);
    ::poll(&ended, 1, kDeathMs);
  }
  const auto status = reap(child->pidfd.get());
  if (!in_time || !status) return fail(ErrorKind::timeout, fmt::format("{} does not answer", argv.front()));
  char text[400];
  const ssize_t size = ::pread(said.get(), text, sizeof text, 0);
  return Answer{*status, split(std::string(text, size > 0 ? static_cast<size_t>(size) : 0), '\n').front()};
}

}  // namespace bitctl
