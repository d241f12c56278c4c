#include "doctor/machine.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>

#include "base/install_layout.h"
#include "base/read_file.h"
#include "base/text.h"
#include "checkpoint/arena.h"
#include "launch/cgroup.h"
#include "launch/memory.h"
#include "launch/neighbours.h"
#include "launch/scope.h"
#include "watch/memory.h"

namespace bitctl {
namespace {

using enum Finding::Verdict;

constexpr int64_t kFirstSaneSecond = 1704067200;  // of 2024: this program is younger
constexpr uint64_t kLittleMemory = uint64_t{1} << 30;

Finding isolation_finding(const Isolation& isolation, const std::string& why_not_better) {
  const std::string level = isolation.level();
  if (level == "cgroup") return {ok, "isolation", "cgroup: a tree dies whole, by one write", ""};
  if (level == "scope")
    return {ok, "isolation", "scope: a cgroup from your systemd; a tree dies whole, by one write", ""};
  if (level == "group")
    return {failure, "isolation", "group: what leaves the process group is leaked", "unset BITCTL_ISOLATION"};
  return {warn, "isolation",
          "sweep: trees are found by marker and descent" +
              (why_not_better.empty() ? std::string() : " (" + why_not_better + ")"),
          "a systemd user session, or rights to a cgroup v2, would give the kernel's own"};
}

}  // namespace

std::vector<Finding> check_isolation() {
  const std::string name = fmt::format("doctor-{}", ::getpid());
  IsolationWish wish = IsolationWish::of_environment();
  std::string why_not_better;
  if (wish.level.empty() || wish.level == "scope") {
    const auto cgroup = try_cgroup();
    const auto scope = cgroup && wish.level.empty() ? Status() : try_scope();
    if (!cgroup && scope)
      return {{ok, "isolation",
               "scope: train enters a cgroup from your systemd (" + cgroup.error().message + ")", ""},
              {ok, "neighbours", "what weighs them is seen inside the scope", ""}};
    if (!cgroup) why_not_better = cgroup.error().message + "; " + scope.error().message;
    if (!scope) wish.scope = scope.error().message;
  } else if (wish.level == "sweep") {
    why_not_better = "BITCTL_ISOLATION=sweep";
  }
  const auto isolation = Isolation::choose(name, wish);
  if (!isolation) return {{failure, "isolation", isolation.error().message, "unset BITCTL_ISOLATION"}};
  const CpuShares shares = cpu_shares(**isolation);
  return {isolation_finding(**isolation, why_not_better),
          {ok, "neighbours",
           name_of(shares) + (shares == CpuShares::weight
                                  ? " decides between training, writer and others"
                                  : " decides between training, writer and others (no cpu controller)"),
           ""}};
}

Finding memory_finding(uint64_t available, uint64_t limit, uint64_t checkpoint) {
  Finding finding{ok, "memory", format_bytes(available) + " available", ""};
  if (limit > 0) finding.text += fmt::format(", limited to {} by a cgroup", format_bytes(limit));
  if (checkpoint > 0) finding.text += fmt::format(", snapshots take {}", format_bytes(2 * checkpoint));
  const uint64_t room = limit > 0 && limit < available ? limit : available;
  if (room < 2 * checkpoint)
    finding.verdict = failure;
  else if (room < 4 * checkpoint || room < kLittleMemory)
    finding.verdict = warn;
  if (finding.verdict != ok) finding.mend = "the training needs its own beside that: free some memory";
  return finding;
}

Finding check_memory_files() {
  constexpr uint64_t kSize = 64 * kArenaPage;
  const auto memory = create_memory("bitctl-doctor", kSize);
  if (!memory) return {failure, "memfd", memory.error().message, "snapshots need memfd_create"};
  if (const auto status = allocate_memory(memory->get(), kSize); !status)
    return {failure, "memfd", status.error().message, "snapshots need fallocate on memory files"};
  if (const auto status = check_memory(memory->get(), kSize); !status)
    return {failure, "memfd", status.error().message, "snapshots need seals"};
  return {ok, "memfd", "shared memory is allocated and sealed", ""};
}

Finding check_memory_room(uint64_t checkpoint) {
  const uint64_t available = read_memory_state().available_bytes;
  if (available == 0) return {warn, "memory", "/proc/meminfo does not tell what is available", ""};
  return memory_finding(available, MemoryEvidence().since().limit, checkpoint);
}

Finding clock_finding(Wall now, Duration asleep) {
  if (unix_seconds(now) < kFirstSaneSecond)
    return {failure, "clock", fmt::format("it is {:%Y-%m-%d} here", fmt::gmtime(unix_seconds(now))),
            "set the clock: what is written down carries its time"};
  Finding finding{ok, "clock", "sane", ""};
  if (asleep > std::chrono::seconds(1))
    finding.text += fmt::format("; the machine has slept {} since its start", format_duration(asleep));
  return finding;
}

Finding check_clock() { return clock_finding(system_clock().wall(), time_asleep()); }

Finding stacks_finding(bool py_spy, int ptrace_scope, bool root) {
  if (!py_spy) return {ok, "stacks", "of a hang: told by Python itself (py-spy is not installed)", ""};
  if (ptrace_scope >= 3 || (ptrace_scope >= 1 && !root))
    return {warn, "stacks", fmt::format("py-spy may not look into processes (ptrace_scope {})", ptrace_scope),
            "stacks are told by Python itself; sysctl kernel.yama.ptrace_scope=0 lets py-spy look too"};
  return {ok, "stacks", "of a hang: told by Python itself, and by py-spy", ""};
}

Finding check_stacks() {
  const int scope = static_cast<int>(
      std::strtol(read_kernel_file("/proc/sys/kernel/yama/ptrace_scope").c_str(), nullptr, 10));
  return stacks_finding(find_program("py-spy").has_value(), scope, ::geteuid() == 0);
}

}  // namespace bitctl
