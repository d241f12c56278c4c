// A folder as a value, and back.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "checkpoint/crash_model.h"
#include "checkpoint/manifest.h"
#include "temporary_folder.h"

namespace bitctl {

// Without the lock files, which are no part of what is saved.
inline Tree tree_of_files(const std::string& folder) {
  Tree tree;
  std::error_code error;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder, error)) {
    const std::string path = entry.path().lexically_relative(folder);
    if (path == ".lock" || path == ".writer.lock") continue;
    tree[path] = entry.is_directory() ? std::nullopt : std::optional(read_text(entry.path()));
  }
  return tree;
}

inline void lay_out(const Tree& tree, const std::string& folder) {
  std::filesystem::create_directories(folder);
  for (const auto& [path, content] : tree) {
    if (content)
      std::ofstream(folder + "/" + path, std::ios::binary) << *content;
    else
      std::filesystem::create_directory(folder + "/" + path);
  }
}

inline Tree below(const Tree& tree, const std::string& folder) {
  Tree found;
  for (auto at = tree.lower_bound(folder + "/"); at != tree.end() && at->first.starts_with(folder + "/");
       ++at)
    found[at->first.substr(folder.size() + 1)] = at->second;
  return found;
}

inline Tree without_manifest(Tree step) {
  step.erase(kManifestName);
  return step;
}

}  // namespace bitctl
