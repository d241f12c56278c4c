#include "launch/neighbours.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
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

SelfGivesWay::SelfGivesWay() {
  if (!autogroups()) {
    static_cast<void>(give_way(::getpid(), CpuShares::nice));
    return;
  }
  // "/autogroup-17 nice 0": what somebody has chosen stays.
  if (read_kernel_file(kOwnAutogroup).ends_with(" nice 0\n"))
    lowered_ = write_kernel_file(kOwnAutogroup, std::to_string(kHalf)).has_value();
}

void SelfGivesWay::end() {
  if (!std::exchange(lowered_, false)) return;
  set_own_autogroup(0);
}

}  // namespace bitctl
