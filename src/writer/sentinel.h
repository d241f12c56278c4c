// What the writer does in the dead supervisor's place. It shares the run's lock, so it may write where only
// the supervisor wrote before.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/strict_json.h"
#include "run/run_folder.h"

namespace bitctl {

class Sentinel {
 public:
  Sentinel(RunFolder folder, std::string isolation)
      : folder_(std::move(folder)), isolation_(std::move(isolation)) {}

  // The process that leads the attempt's session; 0 while there is none.
  void set_leader(pid_t leader) { leader_ = leader; }
  // Kills the trainer's whole tree and says so in events and PULSE, unless the run had ended already.
  void end_tree();
  // What the writer would have told the supervisor, as a row of its own: committed, failed, finished.
  void record(const Json& message);
  // PULSE names the step from which the run can be resumed.
  void tell_the_end();

 private:
  void append(Json row, const Json& fields);

  RunFolder folder_;
  std::string isolation_;  // Isolation::description() as text
  pid_t leader_ = 0;
  bool run_had_ended_ = false;
};

}  // namespace bitctl
