#include "chat/model_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <set>

#include "base/install_layout.h"
#include "base/read_file.h"
#include "base/strict_json.h"
#include "base/visible_text.h"
#include "checkpoint/manifest.h"
#include "run/run_folder.h"

namespace bitctl {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEnding = ".safetensors";
constexpr size_t kMaxIndexBytes = size_t{256} << 20;

bool is_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

bool holds_model(const fs::path& folder) {
  return is_file(folder / kModelFile) || is_file(folder / kModelIndex);
}

// The newest committed step: names are made so that they sort by step.
std::optional<fs::path> newest_step(const fs::path& checkpoints) {
  std::optional<fs::path> newest;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(checkpoints, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("step-") && holds_model(entry.path()) &&
        (!newest || name > newest->filename().string()))
      newest = entry.path();
  }
  return newest;
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
  const fs::path weights = folder / kModelFile;
  if (is_file(weights)) return ModelFiles{name, {weights.string()}, folder.string()};
  if (is_file(folder / kModelIndex)) {
    auto parts = parts_in(folder);
    if (!parts) return forward(std::move(parts));
    return ModelFiles{name, std::move(*parts), folder.string()};
  }
  return fail(
      ErrorKind::not_found,
      fmt::format("{}: no model.safetensors, no model/ and no checkpoint in this folder", folder.string()));
}

}  // namespace

Result<ModelFiles> find_model_files(const std::string& path) {
  const fs::path given = path;
  if (is_folder(given)) {
    const std::string name = name_of(given);
    if (holds_model(given)) return in_folder(given, name);
    if (holds_model(given / "model")) return in_folder(given / "model", name);
    if (const auto step = newest_step(given / "checkpoints")) return in_folder(*step, name);
    return in_folder(given, name);
  }
  if (!is_file(given)) {
    const bool may_be_a_run = path.find('/') == std::string::npos;
    const auto run = may_be_a_run ? find_run(path, absolute_path(".")) : fail(ErrorKind::not_found, "");
    if (run) return find_model_files(run->path());
    if (path.empty() || run.error().kind == ErrorKind::invalid) return tl::unexpected(run.error());
    return fail(ErrorKind::not_found, fmt::format("{}: no such file, folder or run", path));
  }
  if (given.extension() != kEnding)
    return fail(
        ErrorKind::invalid,
        fmt::format("{}: not a .safetensors file; give a model's .safetensors file, its folder, or a run",
                    path));
  const fs::path folder = given.has_parent_path() ? given.parent_path() : fs::path(".");
  // One part stands for all of them.
  const std::string file = given.filename();
  if (is_model_file(file) && file != kModelFile && is_file(folder / kModelIndex))
    return in_folder(folder, name_of(folder));
  return ModelFiles{name_of(given), {path}, folder.string()};
}

}  // namespace bitctl
