// What `bitctl doctor` found out about one thing.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"

namespace bitctl {

struct Finding {
  enum class Verdict { ok, warn, failure };

  Verdict verdict = Verdict::ok;
  std::string check;  // "isolation"
  std::string text;   // what is
  std::string mend;   // what to do about it; empty where nothing is to be done
};

std::string name_of(Finding::Verdict verdict);
// "ok    isolation   cgroup …; mend: …" without the end of line; terminal-safe.
std::string line_of(const Finding& finding);

struct Check {
  std::string name;
  std::function<Finding()> run;  // what it throws is a failure
};

// Checks that may wait for a disk, one after the other in a thread of their own.
class RunningChecks {
 public:
  explicit RunningChecks(std::vector<Check> checks);

  // What they found. One that has not answered by `deadline` is a failure, and those after it are not made;
  // its thread is left to itself.
  std::vector<Finding> wait_until(Mono deadline);

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

}  // namespace bitctl
