#include "checkpoint/folders.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <vector>

#include "base/replace_file.h"
#include "checkpoint/manifest.h"

namespace bitctl {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> paths_in(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) paths.push_back(entry.path());
  return paths;
}

std::string hidden_name(const std::string& kind, const std::string& folder) {
  return fmt::format("{}/.{}-{}-{}", folder_of(folder), kind, filename_of(folder), random_hex8());
}

}  // namespace

Status remove_tree(const std::string& folder, FileOps& ops) {
  for (const std::string& path : paths_in(folder)) {
    struct stat st {};
    if (::lstat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) {
      if (auto status = remove_tree(path, ops); !status) return status;
    } else if (ops.unlink(path) != 0 && errno != ENOENT) {
      return fail_errno("cannot delete " + path);
    }
  }
  if (ops.rmdir(folder) != 0 && errno != ENOENT) return fail_errno("cannot delete " + folder);
  return {};
}

Status remove_folder(const std::string& folder, FileOps& ops) {
  const std::string trash = hidden_name("trash", folder);
  if (ops.rename(folder, trash) != 0) return fail_errno("cannot rename " + folder);
  if (auto status = sync_folder(folder_of(folder), ops); !status) return status;
  return remove_tree(trash, ops);
}

void sweep_stages(const std::string& checkpoints, FileOps& ops) {
  for (const std::string& path : paths_in(checkpoints)) {
    const std::string name = filename_of(path);
    if (name.starts_with(".tmp-") || name.starts_with(".trash-")) static_cast<void>(remove_tree(path, ops));
  }
}

Result<std::string> set_aside(const std::string& step_folder, FileOps& ops) {
  const std::string aside = hidden_name("bad", step_folder);
  if (ops.rename(step_folder, aside) != 0) return fail_errno("cannot rename " + step_folder);
  if (auto status = sync_folder(folder_of(step_folder), ops); !status) return forward(std::move(status));
  return aside;
}

Status publish_model(const std::string& run_folder, const std::string& step_folder, FileOps& ops) {
  const std::string model = run_folder + "/model";
  const std::string stage = fmt::format("{}/.tmp-model-{}-{}", run_folder, ::getpid(), random_hex8());
  if (ops.mkdir(stage, 0777) != 0) return fail_errno("cannot create " + stage);
  Status status;
  for (const std::string& path : paths_in(step_folder)) {
    const std::string name = filename_of(path);
    if (name == kTrainingFile || name == kManifestName) continue;
    if (ops.link(path, stage + "/" + name) != 0) status = fail_errno("cannot link " + path);
  }
  if (status) status = sync_folder(stage, ops);
  if (status && ops.rename2(stage, model, RENAME_NOREPLACE) != 0) {
    // An earlier finish() stands there: the two names are exchanged, and the old one goes.
    if (errno != EEXIST || ops.rename2(stage, model, RENAME_EXCHANGE) != 0)
      status = fail_errno("cannot rename " + stage + " to " + model);
  }
  if (status) status = sync_folder(run_folder, ops);
  static_cast<void>(remove_tree(stage, ops));
  return status;
}

}  // namespace bitctl
