#include "checkpoint/writer_link.h"

namespace bitctl {

std::string to_text(const WriterOptions& options) {
  Json json = {{"run_folder", options.run_folder},
               {"engine", options.engine},
               {"isolation", options.isolation},
               {"supervisor", options.supervisor},
               {"writer_limit", options.writer_limit},
               {"keep_last", options.retention.keep_last},
               {"keep_every", options.retention.keep_every}};
  if (const auto& best = options.retention.keep_best)
    json["keep_best"] = {{"metric", best->metric}, {"smallest", best->smallest}, {"count", best->count}};
  return dump_line(json);
}

Result<WriterOptions> writer_options_from(const std::string& text) {
  const auto json = parse_strict_json(text);
  if (!json) return fail(ErrorKind::invalid, "the argument is not what `bitctl train` gives its writer");
  try {
    WriterOptions options;
    json->at("run_folder").get_to(options.run_folder);
    json->at("engine").get_to(options.engine);
    json->at("isolation").get_to(options.isolation);
    json->at("supervisor").get_to(options.supervisor);
    json->at("writer_limit").get_to(options.writer_limit);
    json->at("keep_last").get_to(options.retention.keep_last);
    json->at("keep_every").get_to(options.retention.keep_every);
    if (const auto best = json->find("keep_best"); best != json->end())
      options.retention.keep_best = BestMetric{best->at("metric"), best->at("smallest"), best->at("count")};
    return options;
  } catch (const Json::exception& error) {
    return fail(ErrorKind::invalid, std::string("writer options: ") + error.what());
  }
}

}  // namespace bitctl
