#include "config/run_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "base/install_layout.h"
#include "base/read_file.h"
#include "base/replace_file.h"
#include "base/text.h"
#include "base/visible_text.h"
#include "config/names.h"
#include "config/schema_check.h"
#include "config/yaml_document.h"

namespace bitctl {
namespace {

constexpr const char* kSchema = "config.v1";

bool is_file(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode);
}

bool is_folder(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

// The error that lists them all.
tl::unexpected<Error> all_of(std::vector<Problem> problems) {
  std::stable_sort(problems.begin(), problems.end(),
                   [](const Problem& a, const Problem& b) { return a.place < b.place; });
  std::vector<std::string> lines;
  for (const Problem& problem : problems) lines.push_back(problem.str());
  return fail(ErrorKind::invalid, fmt::format("{}", fmt::join(lines, "\n")));
}

// Turns a document that fits the schema into the structs. What goes wrong is collected, and the reading goes
// on.
class Reader {
 public:
  Reader(const YamlDocument& document, std::string folder, const Environment& environment)
      : document_(document), folder_(std::move(folder)), environment_(environment) {}

  // Nothing where there are problems.
  std::optional<RunConfig> read() {
    RunConfig config;
    config.name = has("/name") ? text("/name") : safe_run_name(filename_of(folder_));
    for (const auto& [key, value] : map_at("/labels")) config.labels[key] = value;
    config.workdir = folder_;
    read_path("/workdir", config.workdir);
    if (!is_folder(config.workdir)) complain("/workdir", "no such folder: " + config.workdir);
    read_run(config);
    config.output.dir = folder_ + "/runs";
    read_path("/output/dir", config.output.dir);
    read_progress(config.progress);
    read_checkpoints(config.checkpoints);
    read_restart(config.restart);
    if (has("/stop/signal")) config.stop.signal = *signal_number(text("/stop/signal"));
    if (has("/stop/grace") && text("/stop/grace") != "auto") config.stop.grace = duration("/stop/grace");
    read_stall(config.watchdog);
    read_choice("/watchdog/nan", kNanActions, config.watchdog.nan);
    if (has("/limits/time")) config.limits.time = positive_duration("/limits/time");
    collect_secrets(config);
    for (Problem& problem : problems_) problem.text = mask_secrets(problem.text, config.secrets);
    return problems_.empty() ? std::optional(config) : std::nullopt;
  }

  std::vector<Problem> take_problems() { return std::move(problems_); }

 private:
  bool has(const std::string& pointer) const { return document_.has(pointer); }
  const std::string& text(const std::string& pointer) const { return document_.at(pointer).text; }
  const Json& json(const std::string& pointer) const { return document_.json[Json::json_pointer(pointer)]; }

  void complain(const std::string& pointer, std::string what) {
    const bool known = has(pointer);
    problems_.push_back({document_.at(known ? pointer : "").place,
                         known ? fmt::format("{}: {}", dotted(pointer), what) : std::move(what)});
  }
  void complain_of_key(const std::string& pointer, std::string what) {
    problems_.push_back({document_.at(pointer).key_place, std::move(what)});
  }

  // Scalars of a map or a list, as they were written.
  Environment map_at(const std::string& pointer) const {
    Environment map;
    if (!has(pointer)) return map;
    for (const auto& [key, value] : json(pointer).items()) map[key] = text(child_pointer(pointer, key));
    return map;
  }
  std::vector<std::string> list_at(const std::string& pointer) const {
    std::vector<std::string> list;
    for (size_t i = 0; has(pointer) && i < json(pointer).size(); ++i)
      list.push_back(text(child_pointer(pointer, std::to_string(i))));
    return list;
  }

  std::string expanded(const std::string& pointer) {
    auto value = expand(text(pointer), environment_, used_);
    if (value) return *std::move(value);
    complain(pointer, value.error().message);
    return {};
  }
  void read_path(const std::string& pointer, std::string& out) {
    if (!has(pointer)) return;
    const std::string path = expanded(pointer);
    if (path.starts_with('~'))
      complain(pointer, "'~' is not filled in; write ${HOME}");
    else if (!path.empty())
      out = absolute_path(path.starts_with('/') ? path : folder_ + "/" + path);
  }
  template <typename T, size_t N>
  void read_choice(const std::string& pointer, const std::pair<std::string_view, T> (&names)[N], T& out) {
    if (!has(pointer)) return;
    for (const auto& [name, value] : names)
      if (name == text(pointer)) out = value;
  }
  template <typename T>
  void read_number(const std::string& pointer, T& out) {
    if (has(pointer)) out = json(pointer).get<T>();
  }
  // In whole milliseconds, so that what is written down again is exactly this.
  Duration duration(const std::string& pointer) {
    const auto value = parse_duration(text(pointer));
    if (value) return std::chrono::round<std::chrono::milliseconds>(*value);
    complain(pointer, "longer than 100 years");
    return std::chrono::seconds(1);
  }
  Duration positive_duration(const std::string& pointer) {
    const Duration value = duration(pointer);
    if (value == Duration::zero()) complain(pointer, "must be longer than nothing");
    return value;
  }

  void read_run(RunConfig& config) {
    RunConfig::Run& run = config.run;
    for (size_t i = 0; has("/run/command") && i < json("/run/command").size(); ++i)
      run.command.push_back(expanded(fmt::format("/run/command/{}", i)));
    if (has("/run/shell")) run.shell = text("/run/shell");
    if (has("/run/script")) read_script(config);
    for (const auto& [name, value] : map_at("/run/env")) {
      const std::string pointer = child_pointer("/run/env", name);
      if (!is_environment_name(name))
        complain_of_key(pointer, "run.env: this is no name of an environment variable");
      else if (name.starts_with("BITCTL_"))
        complain_of_key(pointer, "run.env: names that start with BITCTL_ are bitctl's own");
      run.env[name] = expanded(pointer);
    }
    read_path("/run/env_file", run.env_file);
    if (!run.env_file.empty()) {
      auto values = read_env_file(run.env_file);
      if (values)
        run.env_from_file = *std::move(values);
      else
        complain("/run/env_file", values.error().message);
    }
    if (has("/run/hook")) run.hook = text("/run/hook") == "auto";
    run.env_required = list_at("/run/env_required");
    for (size_t i = 0; i < run.env_required.size(); ++i)
      if (!is_set(run, run.env_required[i]))
        complain(fmt::format("/run/env_required/{}", i),
                 fmt::format("{} is set neither in the environment nor in run.env or run.env_file",
                             run.env_required[i]));
  }

  void read_script(RunConfig& config) {
    RunConfig::Run& run = config.run;
    read_path("/run/script", run.script);
    if (!run.script.empty() && !is_file(run.script))
      problems_.push_back({document_.at("/run/script").place, "Training script not found: " + run.script});
    run.args = has("/run/args") && json("/run/args").is_object() ? flags() : list_at("/run/args");
    const bool automatic = !has("/run/python") || text("/run/python") == "auto";
    if (automatic) {
      const auto python = find_python(config.workdir);
      if (python)
        run.python = absolute_path(*python);
      else
        complain("/run/script",
                 "no Python found in $VIRTUAL_ENV, .venv, $CONDA_PREFIX or PATH; set run.python");
    } else if (const std::string wanted = expanded("/run/python"); wanted.find('/') != wanted.npos) {
      read_path("/run/python", run.python);
      if (!run.python.empty() && !find_program(run.python))
        complain("/run/python", "no such program: " + run.python);
    } else if (!wanted.empty()) {
      const auto python = find_program(wanted);
      if (!python) complain("/run/python", fmt::format("no program '{}' along PATH", wanted));
      run.python = absolute_path(python.value_or(wanted));
    }
  }

  // {lr: 1e-4, bf16: true, tags: [a, b], seed: null} -> --lr 1e-4 --bf16 --tags a b
  std::vector<std::string> flags() {
    std::vector<std::string> words;
    for (const auto& [key, value] : json("/run/args").items()) {
      const std::string pointer = child_pointer("/run/args", key);
      if (key.empty() || key.find_first_of(" \t\n=") != key.npos)
        complain_of_key(pointer, "run.args: this is no name of a flag");
      if (value.is_null()) continue;
      words.push_back(key.starts_with('-') ? key : "--" + key);
      if (value.is_array())
        for (std::string& word : list_at(pointer)) words.push_back(std::move(word));
      else if (value != true)
        words.push_back(text(pointer));
    }
    return words;
  }

  bool is_set(const RunConfig::Run& run, const std::string& name) const {
    for (const Environment* place : {&environment_, &run.env, &run.env_from_file})
      if (const auto found = place->find(name); found != place->end() && !found->second.empty()) return true;
    return false;
  }

  void read_progress(RunConfig::Progress& progress) {
    read_choice("/progress/source", kProgressSources, progress.source);
    read_path("/progress/file", progress.file);
    const bool pulse = progress.source == ProgressSource::pulse;
    if (pulse && !has("/progress/file"))
      complain("/progress/source", "pulse needs progress.file, the file that the trainer writes");
    if (!pulse && has("/progress/file")) complain("/progress/file", "only read with progress.source: pulse");
  }

  void read_checkpoints(RunConfig::Checkpoints& checkpoints) {
    if (has("/checkpoints/every")) {
      if (json("/checkpoints/every").is_number())
        read_number("/checkpoints/every", checkpoints.every.steps);
      else if (text("/checkpoints/every") != "auto")
        checkpoints.every.time = positive_duration("/checkpoints/every");
    }
    read_number("/checkpoints/keep_last", checkpoints.keep_last);
    read_number("/checkpoints/keep_every", checkpoints.keep_every);
    if (!has("/checkpoints/keep_best")) return;
    KeepBest best;
    best.metric = text("/checkpoints/keep_best/metric");
    read_choice("/checkpoints/keep_best/mode", kBestModes, best.mode);
    read_number("/checkpoints/keep_best/count", best.count);
    checkpoints.keep_best = best;
  }

  void read_restart(RunConfig::Restart& restart) {
    read_choice("/restart/policy", kRestartPolicies, restart.policy);
    read_number("/restart/max", restart.max);
    read_number("/restart/never_on", restart.never_on);
    if (has("/restart/warm")) restart.warm = text("/restart/warm") == "auto";
    if (has("/restart/backoff")) restart.backoff = duration("/restart/backoff");
    if (has("/restart/backoff_max")) restart.backoff_max = duration("/restart/backoff_max");
    if (restart.backoff <= restart.backoff_max) return;
    if (has("/restart/backoff"))
      complain("/restart/backoff", "longer than restart.backoff_max");
    else
      complain("/restart/backoff_max", "shorter than restart.backoff");
  }

  void read_stall(RunConfig::Watchdog& watchdog) {
    if (!has("/watchdog/stall") || text("/watchdog/stall") == "auto") return;
    watchdog.stall_off = text("/watchdog/stall") == "off";
    if (!watchdog.stall_off) watchdog.stall = positive_duration("/watchdog/stall");
  }

  // A secret is written down as a reference to the variable that it can be read from again.
  void collect_secrets(RunConfig& config) {
    for (const auto& [name, value] : used_)
      if (is_secret(name, value)) config.secrets.emplace(value, name);
    for (const Environment* from : {&config.run.env, &config.run.env_from_file})
      for (const auto& [name, value] : *from)
        if (is_secret(name, value)) config.secrets.emplace(value, name_to_read_from(name, value));
  }
  // `HF_TOKEN: ${MY_TOKEN}` is read from MY_TOKEN again; a value that the file spells out, from HF_TOKEN.
  std::string name_to_read_from(const std::string& name, const std::string& value) const {
    for (const auto& [variable, its_value] : used_)
      if (its_value == value) return variable;
    return name;
  }

  const YamlDocument& document_;
  std::string folder_;
  const Environment& environment_;
  Environment used_;  // variables that were filled in
  std::vector<Problem> problems_;
};

bool is_free_map(const std::string& pointer) {
  const Json* schema = schema_at(parsed_schema(kSchema), pointer);
  return schema != nullptr && schema->contains("additionalProperties") &&
         (*schema)["additionalProperties"].is_object();
}

// The script that a Python command line names; nothing for -c, -m and other programs.
std::optional<std::string> script_of(const std::vector<std::string>& argv) {
  if (!filename_of(argv[0]).starts_with("python")) return std::nullopt;
  for (size_t i = 1; i < argv.size(); ++i) {
    if (!argv[i].starts_with('-')) return argv[i];
    if (argv[i] == "-c" || argv[i] == "-m" || argv[i] == "-") return std::nullopt;
    if (argv[i] == "-X" || argv[i] == "-W") ++i;
  }
  return std::nullopt;
}

}  // namespace

Result<RunConfig> load_config(const std::string& path, const std::vector<std::string>& overrides,
                              const Environment& environment) {
  const std::string source = absolute_path(path);
  if (valid_utf8(source) != source) return fail(ErrorKind::invalid, path + ": the path is not valid UTF-8");
  auto content = read_small_file(path, kMaxConfigBytes, Links::follow);
  if (!content) return forward(std::move(content));
  auto document = parse_yaml(*content, path);
  if (!document) return all_of({document.error()});
  if (document->json.is_null())
    return all_of(
        {{document->at("").place, "the config is empty; the smallest is `run: {script: train.py}`"}});

  std::vector<Problem> problems;
  for (const std::string& assignment : overrides)
    if (auto problem = override_value(*document, assignment, is_free_map))
      problems.push_back(*std::move(problem));
  for (Problem& problem : check_schema(parsed_schema(kSchema), *document))
    problems.push_back(std::move(problem));
  if (!problems.empty()) return all_of(std::move(problems));

  Reader reader(*document, folder_of(source), environment);
  auto config = reader.read();
  if (!config) return all_of(reader.take_problems());
  config->source = source;
  return *std::move(config);
}

Result<RunConfig> config_from_command(const std::vector<std::string>& argv, const std::string& cwd) {
  if (argv.empty() || argv[0].empty())
    return fail(ErrorKind::invalid, "expected a command after --, such as: bitctl train -- python train.py");
  RunConfig config;
  config.workdir = absolute_path(cwd);
  config.run.command = argv;
  config.output.dir = config.workdir + "/runs";
  for (const std::string& word : argv)
    if (valid_utf8(word) != word) return fail(ErrorKind::invalid, "the command is not valid UTF-8");
  if (valid_utf8(config.workdir) != config.workdir)
    return fail(ErrorKind::invalid, "the current folder's path is not valid UTF-8");

  std::string named = filename_of(argv[0]);
  if (const auto script = script_of(argv)) {
    named = filename_of(*script);
    if (named.ends_with(".py")) named.resize(named.size() - 3);
    const std::string path =
        absolute_path(script->starts_with('/') ? *script : config.workdir + "/" + *script);
    if (!is_file(path)) return fail(ErrorKind::not_found, "Training script not found: " + path);
  }
  config.name = safe_run_name(named);
  return config;
}

bool is_run_name(const std::string& name) {
  const auto is_alnum = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  return !name.empty() && name.size() <= 64 && is_alnum(name[0]) &&
         std::all_of(name.begin(), name.end(),
                     [&](char c) { return is_alnum(c) || c == '.' || c == '_' || c == '-'; });
}

std::string safe_run_name(const std::string& text) {
  std::string name;
  for (const char c : text) {
    const std::string one(1, c);
    if (is_run_name("x" + one) && (!name.empty() || is_run_name(one)))
      name += c;
    else if (!name.empty() && name.back() != '-')
      name += '-';
  }
  while (name.ends_with('-')) name.pop_back();
  name.resize(std::min<size_t>(name.size(), 64));
  return name.empty() ? "run" : name;
}

}  // namespace bitctl
