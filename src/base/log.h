// What bitctl has to say about itself. In a run it goes to logs/bitctl.log, from a thread of its own so that
// no caller waits for a disk; readers and short commands say it on stderr. Never on stdout, never into the
// panel.
#pragma once

#include <functional>
#include <string>

namespace bitctl {

// "debug", "info", "warn" or "error"; the environment's BITCTL_LOG_LEVEL wins where it is set.
void log_to_stderr(const std::string& level = "warn");
void log_to_file(const std::string& path);
// Each line to `take`, from whichever thread says it, until another log_to… is called.
void log_to(std::function<void(std::string line)> take, const std::string& level = "warn");
// Writes out what is queued; call it before the process ends.
void flush_log();

}  // namespace bitctl
