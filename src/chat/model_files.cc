#include "chat/model_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "base/install_layout.h"
#include "run/run_folder.h"

namespace bitctl {
namespace {

namespace fs = std::filesystem;

bool is_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

// The newest committed step: names are made so that they sort by step.
std::optional<fs::path> newest_step(const fs::path& checkpoints) {
  std::optional<fs::path> newest;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(checkpoints, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("step-") && is_file(entry.path() / "model.safetensors") &&
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

Result<ModelFiles> in_folder(const fs::path& folder, const std::string& name) {
  const fs::path weights = folder / "model.safetensors";
  if (is_file(weights)) return ModelFiles{name, weights.string(), folder.string()};
  if (is_file(folder / "model.safetensors.index.json"))
    return fail(ErrorKind::invalid,
                fmt::format("{}: weights in several files are not supported; save them as one "
                            "(save_pretrained(..., max_shard_size=\"100GB\"))",
                            folder.string()));
  return fail(
      ErrorKind::not_found,
      fmt::format("{}: no model.safetensors, no model/ and no checkpoint in this folder", folder.string()));
}

}  // namespace

Result<ModelFiles> find_model_files(const std::string& path) {
  const fs::path given = path;
  if (is_folder(given)) {
    const std::string name = name_of(given);
    if (is_file(given / "model.safetensors")) return in_folder(given, name);
    if (is_file(given / "model" / "model.safetensors")) return in_folder(given / "model", name);
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
  if (given.extension() != ".safetensors")
    return fail(
        ErrorKind::invalid,
        fmt::format("{}: not a .safetensors file; give a model's .safetensors file, its folder, or a run",
                    path));
  const fs::path folder = given.has_parent_path() ? given.parent_path() : fs::path(".");
  return ModelFiles{name_of(given), path, folder.string()};
}

}  // namespace bitctl
