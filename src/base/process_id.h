// A process that can be recognised again. A bare pid is re-used; pid + start time + boot id is not.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

namespace bitctl {

struct ProcessId {
  pid_t pid = 0;
  uint64_t start_ticks = 0;  // field 22 of /proc/<pid>/stat, in clock ticks since boot
  std::string boot_id;

  bool operator==(const ProcessId&) const = default;
};

ProcessId own_process_id();
// Nothing where no such process exists (a zombie still does).
std::optional<ProcessId> process_id_of(pid_t pid);
// True only for that very process, on this boot, and not a zombie.
bool is_alive(const ProcessId& id);

const std::string& boot_id();

// The command line, arguments joined by spaces, at most 200 bytes; empty where it cannot be read. Values that
// bitctl was given for a trainer's environment are left out: the text goes into lock files and messages.
std::string command_of(pid_t pid);
// When the process started, as local time "2026-11-21 14:57:03"; empty where it cannot be told.
std::string start_time_of(pid_t pid);
// State letter of /proc/<pid>/stat ('R', 'S', 'D', 'T', 'Z', …), 0 where there is no such process.
char state_of(pid_t pid);

void to_json(nlohmann::ordered_json& j, const ProcessId& id);
ProcessId process_id_from(const nlohmann::ordered_json& j);

}  // namespace bitctl
