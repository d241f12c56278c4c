#include "launch/memory.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/read_file.h"
#include "base/replace_file.h"
#include "launch/cgroup_files.h"

namespace bitctl {
namespace {

// The v1 way to say "no limit": the largest number of whole pages.
constexpr uint64_t kNoLimit = uint64_t{1} << 60;

// "max" is no number.
uint64_t number_in(const std::string& path) {
  return std::strtoull(read_kernel_file(path).c_str(), nullptr, 10);
}

std::string v1_memory_cgroup() {
  std::string mount, own;
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    const size_t dash = line.find(" - cgroup ");
    if (dash == std::string::npos || line.find("memory", dash) == std::string::npos) continue;
    std::istringstream fields(line);
    std::string id, parent, device, root;
    fields >> id >> parent >> device >> root >> mount;
    if (root != "/") return {};
  }
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);)
    if (const size_t at = line.find(":memory:"); at != std::string::npos) own = line.substr(at + 8);
  return mount.empty() || own.empty() ? std::string() : mount + own;
}

}  // namespace

MemoryEvidence::MemoryEvidence(const std::string& leaf)
    : MemoryEvidence(
          Places{cgroup2_mount(), leaf.empty() ? own_cgroup().value_or("") : leaf, v1_memory_cgroup()}) {}

MemoryEvidence::MemoryEvidence(Places places) : places_(std::move(places)) {
  for (std::string at = places_.cgroup; at.size() > 1 && at.starts_with(places_.mount) && counter_.empty();
       at = folder_of(at))
    if (::access((at + "/memory.events").c_str(), R_OK) == 0) counter_ = at;
  restart();
}

uint64_t MemoryEvidence::oom_kills() const {
  if (!counter_.empty()) return cgroup_file_value(counter_ + "/memory.events", "oom_kill");
  if (!places_.v1_cgroup.empty())
    return cgroup_file_value(places_.v1_cgroup + "/memory.oom_control", "oom_kill");
  return cgroup_file_value(places_.vmstat, "oom_kill");
}

uint64_t MemoryEvidence::limit() const {
  uint64_t lowest = kNoLimit;
  const auto consider = [&](uint64_t limit) {
    if (limit > 0) lowest = std::min(lowest, limit);
  };
  if (!counter_.empty()) {
    for (std::string at = counter_; at.size() > 1 && at.starts_with(places_.mount); at = folder_of(at))
      consider(number_in(at + "/memory.max"));
  } else if (!places_.v1_cgroup.empty()) {
    consider(cgroup_file_value(places_.v1_cgroup + "/memory.stat", "hierarchical_memory_limit"));
  }
  return lowest < kNoLimit ? lowest : 0;
}

std::optional<uint64_t> MemoryEvidence::room() const {
  std::optional<uint64_t> least;
  const auto consider = [&](uint64_t limit, uint64_t used, uint64_t cache) {
    if (limit == 0 || limit >= kNoLimit) return;
    const uint64_t taken = used - std::min(used, cache);
    const uint64_t room = limit - std::min(limit, taken);
    least = std::min(room, least.value_or(room));
  };
  if (!counter_.empty()) {
    for (std::string at = counter_; at.size() > 1 && at.starts_with(places_.mount); at = folder_of(at))
      consider(number_in(at + "/memory.max"), number_in(at + "/memory.current"),
               cgroup_file_value(at + "/memory.stat", "inactive_file") +
                   cgroup_file_value(at + "/memory.stat", "active_file"));
  } else if (!places_.v1_cgroup.empty()) {
    const std::string stat = places_.v1_cgroup + "/memory.stat";
    consider(cgroup_file_value(stat, "hierarchical_memory_limit"),
             number_in(places_.v1_cgroup + "/memory.usage_in_bytes"),
             cgroup_file_value(stat, "total_inactive_file") + cgroup_file_value(stat, "total_active_file"));
  }
  return least;
}

MemoryUse MemoryEvidence::since() const {
  const uint64_t counted = oom_kills();
  MemoryUse use;
  use.limit = limit();
  use.oom_kills = counted > counted_before_ ? counted - counted_before_ : 0;
  if (use.oom_kills > 0 && !counter_.empty() && counter_ == places_.cgroup)
    use.peak = number_in(counter_ + "/memory.peak");
  return use;
}

}  // namespace bitctl
