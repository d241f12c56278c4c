#include "supervise/retention_policy.h"

#include "base/read_file.h"
#include "config/schema_check.h"
#include "config/yaml_document.h"

namespace bitctl {

RetentionPolicy retention_policy(const RunConfig& config) {
  RetentionPolicy policy;
  policy.keep_last = config.checkpoints.keep_last;
  policy.keep_every = static_cast<uint64_t>(config.checkpoints.keep_every);
  if (const auto& best = config.checkpoints.keep_best)
    policy.keep_best = BestMetric{best->metric, best->mode == BestMode::min, best->count};
  return policy;
}

Result<RetentionPolicy> read_retention_policy(const std::string& config_path) {
  const auto text = read_small_file(config_path, kMaxConfigBytes);
  if (!text) return tl::unexpected(text.error());
  const auto document = parse_yaml(*text, config_path);
  if (!document) return fail(ErrorKind::damaged, document.error().str());
  if (const auto problems = check_schema(parsed_schema("config.v1"), *document); !problems.empty())
    return fail(ErrorKind::damaged, problems.front().str());
  RetentionPolicy policy;
  const auto checkpoints = document->json.find("checkpoints");
  if (checkpoints == document->json.end() || !checkpoints->is_object()) return policy;
  policy.keep_last = static_cast<int>(
      get_unsigned(*checkpoints, "keep_last").value_or(static_cast<uint64_t>(policy.keep_last)));
  policy.keep_every = get_unsigned(*checkpoints, "keep_every").value_or(0);
  if (const auto best = checkpoints->find("keep_best"); best != checkpoints->end() && best->is_object())
    policy.keep_best = BestMetric{get_text(*best, "metric"), get_text(*best, "mode", "min") == "min",
                                  static_cast<int>(get_unsigned(*best, "count").value_or(1))};
  return policy;
}

}  // namespace bitctl
