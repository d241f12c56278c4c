#include "chat/model_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <set>

#include "base/install_layout.h"
#include "base/read_file.h"
#include "base/strict_json.h"
#include "base/visible_text.h"
#include "chat/hub_cache.h"
#include "checkpoint/catalog.h"
#include "checkpoint/manifest.h"
#include "run/run_folder.h"

namespace bitctl {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEnding = ".safetensors";
constexpr std::string_view kAdapterConfig = "adapter_config.json";
constexpr std::string_view kAdapterFile = "adapter_model.safetensors";
constexpr size_t kMaxIndexBytes = size_t{256} << 20;
constexpr size_t kMaxAdapterConfigBytes = size_t{1} << 20;

bool is_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

bool holds_weights(const fs::path& folder) {
  return is_file(folder / kModelFile) || is_file(folder / kModelIndex);
}

bool holds_model(const fs::path& folder) { return holds_weights(folder) || is_file(folder / kAdapterConfig); }

// Newest first. One whose model is being removed, or was never written, is none.
std::vector<StepFolder> steps_of(const fs::path& run) {
  auto steps = step_folders((run / "checkpoints").string());
  std::erase_if(steps, [](const StepFolder& step) { return !holds_model(step.path); });
  return steps;
}

// The name that the user sees, whatever links and dots led there.
std::string name_of(const fs::path& path) {
  std::error_code error;
  fs::path whole = fs::canonical(path, error);
  if (error) whole = path;
  return is_folder(whole) ? whole.filename().string() : whole.stem().string();
}

// The parts that the index names, each once.
Result<std::vector<std::string>> parts_in(const fs::path& folder) {
  const std::string index = folder / kModelIndex;
  const auto text = read_small_file(index, kMaxIndexBytes, Links::follow);
  if (!text) return tl::unexpected(text.error());
  const auto json = parse_strict_json(*text);
  if (!json)
    return fail(ErrorKind::damaged,
                fmt::format("{}: byte {}: {}", index, json.error().byte, json.error().reason));
  Json places = json->is_object() ? json->value("weight_map", Json()) : Json();
  if (!places.is_object()) places = Json::object();
  std::set<std::string> parts;
  for (const auto& [tensor, place] : places.items()) {
    const std::string name = place.is_string() ? place.get<std::string>() : "";
    if (!name.ends_with(kEnding) || name.find('/') != std::string::npos)
      return fail(ErrorKind::damaged,
                  fmt::format("{}: \"{}\" is not said to be in a .safetensors file beside it", index,
                              visible_text(tensor)));
    const std::string part = folder / name;
    if (!is_file(part))
      return fail(ErrorKind::not_found,
                  fmt::format("{}: no such file; {} names it", visible_text(part), index));
    parts.insert(part);
  }
  if (parts.empty()) return fail(ErrorKind::damaged, index + ": no weight_map that names files");
  return std::vector<std::string>(parts.begin(), parts.end());
}

Result<ModelFiles> in_folder(const fs::path& folder, const std::string& name) {
  const std::string adapter = is_file(folder / kAdapterConfig) ? folder.string() : "";
  const fs::path weights = folder / kModelFile;
  if (is_file(weights)) return ModelFiles{name, {weights.string()}, folder.string(), {}, adapter};
  if (is_file(folder / kModelIndex)) {
    auto parts = parts_in(folder);
    if (!parts) return forward(std::move(parts));
    return ModelFiles{name, std::move(*parts), folder.string(), {}, adapter};
  }
  if (!adapter.empty()) return ModelFiles{name, {}, folder.string(), {}, adapter};
  return fail(
      ErrorKind::not_found,
      fmt::format("{}: no model.safetensors, no model/ and no checkpoint in this folder", folder.string()));
}

Result<ModelFiles> in_step(const fs::path& run, const StepFolder& step, const std::string& name) {
  auto files = in_folder(step.path, fmt::format("{} (step {})", name, step.step));
  if (files) files->run = run.string();
  return files;
}

Result<ModelFiles> in_run(const fs::path& run, const ModelChoice& choice) {
  const std::string name = name_of(run);
  const auto steps = steps_of(run);
  if (!choice.step) {
    if (!choice.newest_step && holds_model(run / "model")) {
      auto files = in_folder(run / "model", name);
      if (files) files->run = run.string();
      return files;
    }
    if (!steps.empty()) return in_step(run, steps.front(), name);
    return fail(ErrorKind::not_found, fmt::format("{}: no checkpoint yet", run.string()));
  }
  std::vector<uint64_t> numbers;
  for (const StepFolder& step : steps) {
    if (step.step == *choice.step) return in_step(run, step, name);
    numbers.push_back(step.step);
  }
  return fail(
      ErrorKind::not_found,
      fmt::format("{}: no checkpoint of step {}; {}", run.string(), *choice.step,
                  numbers.empty() ? "there is none" : fmt::format("there are {}", fmt::join(numbers, ", "))));
}

bool has_steps_or_model(const fs::path& folder) {
  return holds_model(folder / "model") || !steps_of(folder).empty();
}

// A finished run answers before one that is still in training.
Result<ModelFiles> in_newest_run(const ModelChoice& choice) {
  const std::string here = absolute_path(".");
  std::optional<std::string> unfinished;
  for (const bool all : {false, true}) {
    for (const RunFolder& run : list_runs(here, all)) {
      if (holds_model(run.model())) return in_run(run.path(), choice);
      if (!unfinished && has_steps_or_model(run.path())) unfinished = run.path();
    }
    if (unfinished) return in_run(*unfinished, choice);
  }
  const auto newest = find_run("", here);
  if (!newest) return tl::unexpected(newest.error());
  return fail(ErrorKind::not_found,
              fmt::format("{}: no checkpoint yet, and no other run has one; name a model", newest->path()));
}

// The text worker and the decoder need these beside the weights.
Result<ModelFiles> in_hub_cache(const std::string& name, const std::string& model) {
  const auto snapshot = find_hub_snapshot(model);
  if (!snapshot) return tl::unexpected(snapshot.error());
  auto files = in_folder(*snapshot, name);
  std::string missing = files ? "" : files.error().message;
  for (const char* file : {"config.json", "tokenizer.json"})
    if (missing.empty() && files->adapter.empty() && !is_file(fs::path(*snapshot) / file))
      missing = fmt::format("{}/{}: no such file", *snapshot, file);
  if (missing.empty()) return files;
  return fail(ErrorKind::not_found,
              fmt::format("{} is not whole in the Hugging Face cache: {}", name, missing));
}

Result<ModelFiles> by_name(const ModelChoice& choice) {
  const std::string& name = choice.path;
  const bool may_be_a_run = name.find('/') == std::string::npos;
  std::string looked = fmt::format("{}: no such file, folder or run", name);
  if (may_be_a_run) {
    const auto run = find_run(name, absolute_path("."));
    if (run) return in_run(run->path(), choice);
    if (run.error().kind == ErrorKind::invalid) return tl::unexpected(run.error());
    looked = fmt::format("{}: no such file or folder; {}", name, run.error().message);
  }
  if (!may_be_hub_name(name)) return fail(ErrorKind::not_found, looked);
  if (const auto model = find_hub_model(name)) return in_hub_cache(name, *model);
  return fail(ErrorKind::not_found,
              fmt::format("{}; not in the Hugging Face cache {}", looked, hub_cache_folder()));
}

Result<ModelFiles> in_file(const fs::path& file) {
  if (file.extension() != kEnding)
    return fail(
        ErrorKind::invalid,
        fmt::format("{}: not a .safetensors file; give a model's .safetensors file, its folder, or a run",
                    file.string()));
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  // One part stands for all of them.
  const std::string name = file.filename();
  if ((is_model_file(name) && name != kModelFile && is_file(folder / kModelIndex)) || name == kAdapterFile)
    return in_folder(folder, name_of(folder));
  return ModelFiles{name_of(file), {file.string()}, folder.string()};
}

Result<ModelFiles> without_step(Result<ModelFiles> found, const ModelChoice& choice) {
  if (!found || !found->run.empty() || (!choice.step && !choice.newest_step)) return found;
  return fail(ErrorKind::invalid, fmt::format("{}: not a run, so it has no steps", choice.path));
}

Result<ModelFiles> find(const ModelChoice& choice) {
  const fs::path given = choice.path;
  if (choice.path.empty()) return in_newest_run(choice);
  if (is_folder(given) && !holds_model(given) && has_steps_or_model(given)) return in_run(given, choice);
  if (is_folder(given)) return without_step(in_folder(given, name_of(given)), choice);
  return without_step(is_file(given) ? in_file(given) : by_name(choice), choice);
}

Result<std::string> base_named_by(const fs::path& adapter) {
  const std::string path = adapter / kAdapterConfig;
  const auto text = read_small_file(path, kMaxAdapterConfigBytes, Links::follow);
  if (!text) return tl::unexpected(text.error());
  const auto json = parse_strict_json(*text);
  if (!json)
    return fail(ErrorKind::damaged,
                fmt::format("{}: byte {}: {}", path, json.error().byte, json.error().reason));
  const std::string name = json->is_object() ? get_text(*json, "base_model_name_or_path") : "";
  if (name.empty())
    return fail(ErrorKind::not_found, path + ": names no base model; give it by --base-model");
  return name;
}

// The adapter `found` with the files of its base.
Result<ModelFiles> on_its_base(ModelFiles found, const std::string& base_model) {
  const fs::path adapter = found.adapter;
  if (!is_file(adapter / kAdapterFile)) {
    if (!found.weights.empty()) return found;  // saved by a training that holds both
    return fail(ErrorKind::not_found, fmt::format("{}/{}: no such file; save the adapter with safetensors",
                                                  found.adapter, kAdapterFile));
  }
  if (!found.weights.empty() && base_model.empty()) return found;  // a whole model with an adapter beside it
  const auto name = base_model.empty() ? base_named_by(adapter) : Result<std::string>(base_model);
  if (!name) return tl::unexpected(name.error());
  auto base = find({.path = *name});
  if (!base || !base->adapter.empty())
    return fail(ErrorKind::not_found, fmt::format("the base model of {} is not here: {}{}", found.name,
                                                  base ? *name + ": an adapter itself" : base.error().message,
                                                  base_model.empty() ? "; give it by --base-model" : ""));
  found.weights = std::move(base->weights);
  found.folder = std::move(base->folder);
  return found;
}

}  // namespace

std::string ModelFiles::text_folder() const {
  return !adapter.empty() && is_file(fs::path(adapter) / "tokenizer.json") ? adapter : folder;
}

Result<ModelFiles> find_model_files(const ModelChoice& choice, const std::string& base_model) {
  auto found = find(choice);
  if (found && found->folder == choice.other_than)
    return fail(ErrorKind::invalid, found->name + " is the newest already");
  if (found && !found->adapter.empty()) return on_its_base(std::move(*found), base_model);
  return found;
}

std::optional<std::string> name_on_hub(const ModelChoice& choice) {
  const std::string& name = choice.path;
  std::error_code error;
  if (choice.step || choice.newest_step || !may_be_hub_name(name) || fs::exists(name, error))
    return std::nullopt;
  if (find_hub_model(name)) return name;
  const size_t slash = name.find('/');
  if (slash == std::string::npos || is_folder(name.substr(0, slash))) return std::nullopt;
  return name;
}

}  // namespace bitctl
