#include "launch/neighbours.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include "base/read_file.h"
#include "launch/cgroup_files.h"

namespace bitctl {
namespace {

// Each step of nice is a factor of 1.25: three of them are one half.
constexpr int kHalf = 3;

}  // namespace

CpuShares cpu_shares(const Isolation& isolation) {
  if (isolation.weighs_cpu()) return CpuShares::weight;
  const bool autogroup = read_kernel_file("/proc/sys/kernel/sched_autogroup_enabled").starts_with("1");
  return autogroup ? CpuShares::autogroup : CpuShares::nice;
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
    return write_cgroup_file(fmt::format("/proc/{}/autogroup", pid), std::to_string(kHalf));
  if (::setpriority(PRIO_PROCESS, static_cast<id_t>(pid), kHalf) != 0)
    return fail_errno(fmt::format("cannot lower the priority of pid {}", pid));
  return {};
}

}  // namespace bitctl
