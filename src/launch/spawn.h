// Starting a process that cannot escape notice: pidfd from birth, a session of its own, a clean signal mask,
// no descriptor but those named, and (where wanted) its death when ours comes.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "config/environment.h"

namespace bitctl {

struct SpawnPlan {
  std::vector<std::string> argv;  // argv[0] is looked up along the PATH of `env`
  Environment env;
  std::string cwd;
  std::string output;          // file that stdout and stderr are appended to; empty: /dev/null
  std::vector<int> inherited;  // become descriptors 3, 4, … of the child, in this order
  int cgroup = -1;             // a cgroup v2 folder to be born in; -1: ours
  bool dies_with_us = true;    // SIGKILL when the thread that made it ends
};

struct Spawned {
  pid_t pid = 0;
  Fd pidfd;
};

// Call it from the main thread only: dies_with_us means the *thread* that made it. Error::not_found
// (127) where there is no such program, Error::invalid (126) where it cannot be executed, Error::io for the
// rest; in every case no child is left.
Result<Spawned> spawn(const SpawnPlan& plan);

// How a child ended.
struct ExitStatus {
  bool signalled = false;
  int code = 0;           // exit code, or the signal's number
  uint64_t peak_rss = 0;  // bytes; its own or that of a child it had waited for, whichever was more

  // How it ended; what it took is no part of that.
  bool operator==(const ExitStatus& other) const {
    return signalled == other.signalled && code == other.code;
  }
  int as_exit_code() const { return signalled ? 128 + code : code; }
};

// Reaps it: nothing while it still runs.
std::optional<ExitStatus> reap(int pidfd);

}  // namespace bitctl
