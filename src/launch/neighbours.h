// What decides between a training, its writer and whatever else wants the processor.
#pragma once

#include <sys/types.h>

#include <optional>
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

// A writer of itself, for the time of a save beside a training: next to nothing while others want the
// processor, and half again. Needs no rights in either direction, so only where autogroups decide; elsewhere
// nothing happens. May take some tenths of a second.
void yield_session(bool yield);

// Half of it for this process, as long as the object lives: a chat that computes beside a training; or what
// `nice` says, 0 to 19, each step four fifths of the one before. A terminal's session is one autogroup, its
// shell included, so it gets back what it had; the session of a chat that is killed keeps this until somebody
// writes it back. Without `nice`, what somebody has chosen for the session stays.
class SelfGivesWay {
 public:
  explicit SelfGivesWay(std::optional<int> nice = {});
  ~SelfGivesWay() { end(); }
  SelfGivesWay(const SelfGivesWay&) = delete;
  void end();

 private:
  std::optional<int> before_;  // of the session, where it was changed
};

}  // namespace bitctl
