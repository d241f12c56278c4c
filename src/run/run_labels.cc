#include "run/run_labels.h"

#include "base/read_file.h"
#include "base/strict_json.h"

namespace bitctl {
namespace {

constexpr size_t kMaxRunJsonBytes = 4 << 20;

void take_label(const Json& labels, const char* key, std::string& out) {
  const auto found = labels.find(key);
  if (found != labels.end() && found->is_string() && !found->get_ref<const std::string&>().empty())
    out = found->get<std::string>();
}

}  // namespace

RunLabels read_labels(const std::string& run_json) {
  RunLabels labels;
  const auto bytes = read_small_file(run_json, kMaxRunJsonBytes);
  if (!bytes) return labels;
  const auto json = parse_strict_json(*bytes);
  if (!json || !json->is_object() || !json->contains("labels") || !json->at("labels").is_object())
    return labels;
  take_label(json->at("labels"), "profile", labels.profile);
  take_label(json->at("labels"), "dataset", labels.dataset);
  return labels;
}

}  // namespace bitctl
