// What decides between a training, its writer and whatever else wants the processor.
#pragma once

#include <sys/types.h>

#include <string>

#include "launch/isolation.h"

namespace bitctl {

enum class CpuShares {
  weight,     // cpu.weight of the cgroups that our isolation has made
  autogroup,  // the nice value of a session's autogroup; that of its processes means nothing outside of it
  nice,       // that of the processes
};

CpuShares cpu_shares(const Isolation& isolation);
std::string name_of(CpuShares shares);  // "cpu.weight", "autogroup", "nice"

// A writer gets half of what a training process gets while both want the processor. `pid` leads a session of
// its own. Where cpu.weight decides there is nothing to do: the isolation has seen to it.
Status give_way(pid_t pid, CpuShares shares);

}  // namespace bitctl
