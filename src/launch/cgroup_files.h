// The folders and small files of cgroup v2. Every function takes the folder, so that a test may hand over one
// of plain files.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"

namespace bitctl {

// Where cgroup v2 is mounted ("/sys/fs/cgroup"; "/sys/fs/cgroup/unified" on hybrid hosts), found through
// mountinfo, never assumed; empty where it is not.
std::string cgroup2_mount();
// The folder of the cgroup that this process is in.
Result<std::string> own_cgroup();

// One write of the whole text, as these files want it.
Status write_kernel_file(const std::string& path, const std::string& text);
// The value of "key value" on a line of its own, as in memory.events; 0 where there is none.
uint64_t cgroup_file_value(const std::string& path, const std::string& key);

std::vector<std::string> cgroup_children(const std::string& folder);
// The processes in it and below it.
std::vector<pid_t> cgroup_pids(const std::string& folder);
bool cgroup_is_populated(const std::string& folder);
// It and what is below it, as far as no process is left inside.
void remove_cgroup(const std::string& folder);
Status move_to_cgroup(const std::string& folder, pid_t pid);

// Hands memory, cpu, io and pids on to the children of `folder`, those that it has and that it does not hand
// on already. Returns those that it now does because of us. A folder that is not the root must hold no
// process of its own.
std::vector<std::string> hand_on_controllers(const std::string& folder);
// The opposite; refused by the kernel as long as a child still uses them.
void take_back_controllers(const std::string& folder, const std::vector<std::string>& controllers);

}  // namespace bitctl
