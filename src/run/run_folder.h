// One run, one folder: the names of what lies in it, and how a run is found. Pure paths; nothing is created
// here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace bitctl {

class RunFolder {
 public:
  explicit RunFolder(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  std::string id() const;  // "<name>-<YYYYmmdd-HHMMSS>", the folder's own name
  std::string config() const { return path_ + "/config.yaml"; }
  std::string run_json() const { return path_ + "/run.json"; }
  std::string pulse() const { return path_ + "/training_status.json"; }
  std::string pulse_lock() const { return pulse() + ".lock"; }
  std::string events() const { return path_ + "/events.jsonl"; }
  std::string logs() const { return path_ + "/logs"; }
  std::string log_of_attempt(int attempt) const;
  std::string own_log() const { return path_ + "/logs/bitctl.log"; }
  std::string checkpoints() const { return path_ + "/checkpoints"; }
  std::string checkpoints_lock() const { return checkpoints() + "/.lock"; }
  std::string model() const { return path_ + "/model"; }

 private:
  std::string path_;
};

// `name` is a run id, its unique prefix, or a run folder; empty means runs/latest below `folder`, else the
// newest run of this user. Looks in <folder>/runs and in $XDG_STATE_HOME/bitctl/runs. Error::not_found says
// where it looked, Error::invalid names the candidates of a prefix that is not unique, Error::io says that
// this user has no home to look in. The path comes back with its links resolved.
Result<RunFolder> find_run(const std::string& name, const std::string& folder);

// What the name of a run's folder begins with while it is being removed; such a one is no run any more.
constexpr std::string_view kPrunedPrefix = ".prune-";

// The runs of <folder>/runs, or with `all` every run of this user; newest first.
std::vector<RunFolder> list_runs(const std::string& folder, bool all);
// Those that lie in this very folder; newest first.
std::vector<RunFolder> runs_in(const std::string& runs);

}  // namespace bitctl
