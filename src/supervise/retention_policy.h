// Which checkpoints stay, as a run's config says it.
#pragma once

#include "checkpoint/retention.h"
#include "config/run_config.h"

namespace bitctl {

inline RetentionPolicy retention_policy(const RunConfig& config) {
  RetentionPolicy policy;
  policy.keep_last = config.checkpoints.keep_last;
  policy.keep_every = static_cast<uint64_t>(config.checkpoints.keep_every);
  if (const auto& best = config.checkpoints.keep_best)
    policy.keep_best = BestMetric{best->metric, best->mode == BestMode::min, best->count};
  return policy;
}

}  // namespace bitctl
