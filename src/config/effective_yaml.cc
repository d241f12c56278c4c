#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/strict_json.h"
#include "base/text.h"
#include "config/core_scalar.h"
#include "config/names.h"
#include "config/run_config.h"

namespace bitctl {
namespace {

// Text that reads back as the same text without quotes, also for readers of YAML 1.1, which knows more words
// for true and false. Everything else goes into JSON's quotes, which are YAML's too.
bool needs_no_quotes(const std::string& text) {
  constexpr std::string_view kSafe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
  return !text.empty() && text[0] != '-' && text.find_first_not_of(kSafe) == std::string::npos &&
         core_scalar(text).is_string() && text != "null" && text != "Null" && text != "NULL" &&
         text != "on" && text != "off" && text != "yes" && text != "no";
}

std::string in_one_line(const Json& json) {
  if (json.is_array()) {
    std::vector<std::string> items;
    for (const Json& item : json) items.push_back(in_one_line(item));
    return fmt::format("[{}]", fmt::join(items, ", "));
  }
  return json.is_string() && needs_no_quotes(json) ? json.get<std::string>() : json.dump();
}

// Maps as blocks, everything below them on one line.
std::string in_blocks(const Json& map, const std::string& indentation = "") {
  std::string yaml;
  for (const auto& [key, value] : map.items()) {
    yaml += indentation + in_one_line(key) + ":";
    if (value.is_object())
      yaml += "\n" + in_blocks(value, indentation + "  ");
    else
      yaml += " " + in_one_line(value) + "\n";
  }
  return yaml;
}

std::string written(Duration duration) {
  int64_t ms = std::chrono::round<std::chrono::milliseconds>(duration).count();
  if (ms == 0) return "0s";
  std::string text;
  constexpr std::pair<const char*, int64_t> kUnits[] = {
      {"d", 86'400'000}, {"h", 3'600'000}, {"m", 60'000}, {"s", 1000}, {"ms", 1}};
  for (const auto& [unit, size] : kUnits) {
    if (ms >= size) text += fmt::format("{}{}", ms / size, unit);
    ms %= size;
  }
  return text;
}

Json run_section(const RunConfig& config) {
  const RunConfig::Run& run = config.run;
  const auto reference = [&](const std::string& text) { return unexpand(text, config.secrets); };
  Json json = Json::object();
  for (const std::string& word : run.command) json["command"].push_back(reference(word));
  if (!run.script.empty()) {
    json["script"] = reference(run.script);
    if (!run.args.empty()) json["args"] = run.args;
    json["python"] = reference(run.python);
  }
  if (!run.shell.empty()) json["shell"] = run.shell;
  for (const auto& [name, value] : run.env) json["env"][name] = reference(value);
  if (!run.env_file.empty()) json["env_file"] = reference(run.env_file);
  if (!run.env_required.empty()) json["env_required"] = run.env_required;
  json["hook"] = run.hook ? "auto" : "off";
  return json;
}

Json checkpoints_section(const RunConfig::Checkpoints& checkpoints) {
  Json json;
  if (checkpoints.every.steps > 0)
    json["every"] = checkpoints.every.steps;
  else
    json["every"] = checkpoints.every.is_automatic() ? "auto" : written(checkpoints.every.time);
  json["keep_last"] = checkpoints.keep_last;
  if (checkpoints.keep_best) {
    json["keep_best"] = {{"metric", checkpoints.keep_best->metric},
                         {"mode", name_of(kBestModes, checkpoints.keep_best->mode)},
                         {"count", checkpoints.keep_best->count}};
  }
  if (checkpoints.keep_every > 0) json["keep_every"] = checkpoints.keep_every;
  return json;
}

}  // namespace

std::string effective_yaml(const RunConfig& config) {
  const auto reference = [&](const std::string& text) { return unexpand(text, config.secrets); };
  Json json;
  json["version"] = 1;
  json["name"] = config.name;
  json["labels"] = config.labels;
  json["workdir"] = reference(config.workdir);
  json["run"] = run_section(config);
  json["output"]["dir"] = reference(config.output.dir);
  json["progress"]["source"] = name_of(kProgressSources, config.progress.source);
  if (!config.progress.file.empty()) json["progress"]["file"] = reference(config.progress.file);
  json["checkpoints"] = checkpoints_section(config.checkpoints);
  json["restart"] = {{"policy", name_of(kRestartPolicies, config.restart.policy)},
                     {"max", config.restart.max},
                     {"backoff", written(config.restart.backoff)},
                     {"backoff_max", written(config.restart.backoff_max)},
                     {"never_on", config.restart.never_on},
                     {"warm", config.restart.warm ? "auto" : "off"}};
  json["stop"]["signal"] = signal_name(config.stop.signal);
  json["stop"]["grace"] = config.stop.grace ? written(*config.stop.grace) : "auto";
  json["watchdog"]["stall"] = config.watchdog.stall_off ? "off"
                              : config.watchdog.stall   ? written(*config.watchdog.stall)
                                                        : "auto";
  json["watchdog"]["nan"] = name_of(kNanActions, config.watchdog.nan);
  if (config.limits.time) json["limits"]["time"] = written(*config.limits.time);
  return in_blocks(json);
}

}  // namespace bitctl
