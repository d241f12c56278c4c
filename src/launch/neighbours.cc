#include "launch/neighbours.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <thread>
#include <utility>

#include "base/read_file.h"
#include "launch/cgroup_files.h"

namespace bitctl {
namespace {

// Each step of nice is a factor of 1.25: three of them are one half.
constexpr int kHalf = 3;
constexpr int kLeast = 19;
constexpr const char* kOwnAutogroup = "/proc/self/autogroup";

// The kernel takes ten changes a second from all ordinary users together.
void set_own_autogroup(int nice) {
  for (int tries = 0; tries < 10 && !write_kernel_file(kOwnAutogroup, std::to_string(nice)); ++tries)
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
}

bool autogroups() { return read_kernel_file("/proc/sys/kernel/sched_autogroup_enabled").starts_with("1"); }

}  // namespace

CpuShares cpu_shares(const Isolation& isolation) {
  if (isolation.weighs_cpu()) return CpuShares::weight;
  return autogroups() ? CpuShares::autogroup : CpuShares::nice;
}

std::string name_of(CpuShares shares) {
  switch (shares) {
    case CpuShares::weight:
      return "cpu.weight";
    case CpuShares::autogroup:
      return "autogroup";
    case CpuShares::nice:
      return "nice";
  }
  return "?";
}

Status give_way(pid_t pid, CpuShares shares) {
  if (shares == CpuShares::weight) return {};
  if (shares == CpuShares::autogroup)
    return write_kernel_file(fmt::format("/proc/{}/autogroup", pid), std::to_string(kHalf));
  if (::setpriority(PRIO_PROCESS, static_cast<id_t>(pid), kHalf) != 0)
    return fail_errno(fmt::format("cannot lower the priority of pid {}", pid));
  return {};
}

void yield_session(bool yield) {
  if (autogroups()) set_own_autogroup(yield ? kLeast : kHalf);
}

SelfGivesWay::SelfGivesWay(std::optional<int> nice) {
  // Inside a cgroup that weighs its processes, the autogroup that the kernel shows decides nothing.
  if (nice || !autogroups()) ::setpriority(PRIO_PROCESS, 0, nice.value_or(kHalf));
  if (!autogroups()) return;
  const std::string autogroup = read_kernel_file(kOwnAutogroup);  // "/autogroup-17 nice 0"
  const size_t value = autogroup.rfind(' ');
  if (value == std::string::npos) return;
  const int before = std::atoi(&autogroup[value]);
  if (!nice && before != 0) return;
  if (write_kernel_file(kOwnAutogroup, std::to_string(nice.value_or(kHalf)))) before_ = before;
}

void SelfGivesWay::end() {
  if (const auto before = std::exchange(before_, std::nullopt)) set_own_autogroup(*before);
}

}  // namespace bitctl
