// Why a run ended, or what went wrong on its way, as a person would say it. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/strict_json.h"
#include "run/history.h"
#include "run/run_folder.h"
#include "run/story.h"

namespace bitctl {

// What stands beside the history.
struct RunContext {
  std::string id;
  std::string state;      // state_of_run()
  bool rebooted = false;  // since its supervisor was last seen
  std::string program;    // argv[0] of the trainer
  std::string workdir;
  std::string log;       // path of the log of the attempt that is explained
  std::string log_tail;  // its end
};

struct Explanation {
  std::string state;
  std::string what;                     // one sentence, always there
  std::optional<AttemptStory> failure;  // nothing where no attempt went wrong
  std::string exception;                // from the trainer's own words, else from its log
  std::string frame;
  std::string memory;             // "11.2 GiB at its peak, of 12.0 GiB"
  std::vector<std::string> did;   // what bitctl did about it
  std::vector<std::string> next;  // what to try
  std::string log;                // empty where nothing failed
};

Explanation explain(const Story& story, const History& history, const RunContext& around);

}  // namespace bitctl
