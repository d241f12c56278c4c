// Isolation by cgroup v2: see launch/isolation.h. A run's folder is
//   <the cgroup that bitctl was started in>/bitctl-<run>-<random>/
//     supervisor/     bitctl and its writer: killing all trees never hits them
//     trees/<name>/   one leaf per tree
// so that no cgroup with children holds a process, and the controllers that we were given can be handed on.
#pragma once

#include "launch/isolation.h"

namespace bitctl {

// What is in the way of a cgroup of our own: no cgroup v2, no rights, no cgroup.kill. Tries it out and leaves
// nothing behind.
Status try_cgroup();

// Moves this process into the supervisor's leaf; it goes back when the isolation is destroyed. `level` is
// what it calls itself.
Result<std::unique_ptr<Isolation>> isolate_by_cgroup(const std::string& run_folder, const std::string& level);
std::unique_ptr<Isolation> rebuild_cgroup(const Json& description);

}  // namespace bitctl
