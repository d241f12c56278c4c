// A Python program of this project as a child process with descriptors of its own.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"

namespace bitctl {

struct WorkerCommand {
  std::vector<std::string> argv;
  std::vector<std::string> environment;  // "NAME=value"
};

// The first of the descriptors that spawn_worker() hands over, for the command line.
constexpr int kFirstWorkerFd = 3;

// `python -m module`, in $BITCTL_PYTHON, or the Python that the user in `folder` means, or bitctl's own
// environment. Error::not_found where there is none.
Result<WorkerCommand> worker_command(const std::string& module, const std::string& folder);

struct WorkerFds {
  int input = -1;           // its standard input; -1: /dev/null
  int output = -1;          // its standard output and error
  std::vector<int> passed;  // become 3, 4, …; it has nothing else of ours
};

// In a process group of its own, so that the terminal's Ctrl-C is not for it, and with the signals of a new
// process. Does not wait for it.
Result<pid_t> spawn_worker(const WorkerCommand& command, const WorkerFds& fds);

// "the text worker ended (exit code 3): its last lines". `status` is an exit code, or a signal's number
// negated.
std::string worker_end(const std::string& who, int status, const std::string& output);

}  // namespace bitctl
