// Which checkpoints stay, as a run's config says it.
#pragma once

#include <string>

#include "checkpoint/retention.h"
#include "config/run_config.h"

namespace bitctl {

RetentionPolicy retention_policy(const RunConfig& config);

// Of the config.yaml in a run's folder, of which only this is read: that its trainer, or a secret of it, is
// not to be found on this machine any more does not matter here.
Result<RetentionPolicy> read_retention_policy(const std::string& config_path);

}  // namespace bitctl
