#include "chat/hub_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/environment_variable.h"
#include "base/install_layout.h"
#include "base/read_file.h"
#include "base/text.h"

namespace bitctl {
namespace {

constexpr size_t kMaxRefBytes = 256;

// Also of a commit: it becomes part of a path.
bool is_name_part(std::string_view part) {
  constexpr std::string_view kAllowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
  return !part.empty() && part.front() != '.' && part.find_first_not_of(kAllowed) == std::string_view::npos;
}

}  // namespace

std::string hub_cache_folder() {
  if (const std::string cache = environment_variable("HF_HUB_CACHE"); !cache.empty()) return cache;
  if (const std::string home = environment_variable("HF_HOME"); !home.empty()) return home + "/hub";
  const std::string cache = environment_variable("XDG_CACHE_HOME");
  return (cache.empty() ? home_folder() + "/.cache" : cache) + "/huggingface/hub";
}

bool may_be_hub_name(std::string_view name) {
  const auto parts = split(name, '/');
  return parts.size() <= 2 && std::all_of(parts.begin(), parts.end(), is_name_part);
}

std::optional<std::string> find_hub_model(const std::string& name) {
  if (!may_be_hub_name(name)) return std::nullopt;
  std::string folder = hub_cache_folder() + "/models";
  for (const auto& part : split(name, '/')) folder += "--" + part;
  std::error_code error;
  return std::filesystem::is_directory(folder, error) ? std::optional(folder) : std::nullopt;
}

Result<std::string> find_hub_snapshot(const std::string& model) {
  const std::string ref = model + "/refs/main";
  auto commit = read_small_file(ref, kMaxRefBytes, Links::follow);
  if (!commit) return fail(commit.error().kind, commit.error().message + "; no download has got that far");
  commit->erase(std::min(commit->find_last_not_of(" \r\n") + 1, commit->size()));
  if (!is_name_part(*commit)) return fail(ErrorKind::damaged, ref + ": names no commit");
  const std::string snapshot = model + "/snapshots/" + *commit;
  std::error_code error;
  if (!std::filesystem::is_directory(snapshot, error))
    return fail(ErrorKind::not_found, fmt::format("{}: no such folder; {} names it", snapshot, ref));
  return snapshot;
}

}  // namespace bitctl
