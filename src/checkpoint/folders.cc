#include "checkpoint/folders.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <map>
#include <utility>
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

// The name in the middle of a hidden one.
std::string name_behind(const std::string& hidden) {
  const size_t begin = hidden.find('-') + 1;
  return hidden.substr(begin, hidden.rfind('-') - begin);
}

}  // namespace

Status remove_tree(const std::string& folder, FileOps& ops) {
  struct stat self {};
  // Of a link that stands in a folder's place only the link goes, never what it points to.
  if (::lstat(folder.c_str(), &self) == 0 && !S_ISDIR(self.st_mode))
    return ops.unlink(folder) == 0 ? Status() : fail_errno("cannot delete " + folder);
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

uint64_t bytes_freed_by(const std::vector<std::string>& folders) {
  std::map<std::pair<dev_t, ino_t>, nlink_t> names;  // that go, of each file
  uint64_t bytes = 0;
  for (const std::string& folder : folders)
    for (const std::string& path : paths_in(folder)) {
      struct stat st {};
      if (::lstat(path.c_str(), &st) != 0 || !S_ISREG(st.st_mode)) continue;
      if (++names[{st.st_dev, st.st_ino}] == st.st_nlink) bytes += static_cast<uint64_t>(st.st_size);
    }
  return bytes;
}

void sweep_stages(const std::string& folder, FileOps& ops) {
  std::vector<std::string> left = paths_in(folder);
  std::erase_if(left, [](const std::string& path) {
    const std::string name = filename_of(path);
    return !name.starts_with(".tmp-") && !name.starts_with(".trash-") && !name.starts_with(".old-");
  });
  // The disk may know what is here by another name still, one that counts.
  if (left.empty() || !sync_folder(folder, ops)) return;
  for (const std::string& path : left) {
    if (filename_of(path).starts_with(".old-")) {
      const auto restored = add_folder(path, folder + "/" + name_behind(filename_of(path)), ops);
      // Never half of it under a name that is brought back.
      if (restored && !*restored) static_cast<void>(remove_folder(path, ops));
    } else {
      static_cast<void>(remove_tree(path, ops));
    }
  }
}

Result<std::string> set_aside(const std::string& step_folder, FileOps& ops) {
  const std::string aside = hidden_name("bad", step_folder);
  if (ops.rename(step_folder, aside) != 0) return fail_errno("cannot rename " + step_folder);
  if (auto status = sync_folder(folder_of(step_folder), ops); !status) return forward(std::move(status));
  return aside;
}

Result<bool> add_folder(const std::string& stage, const std::string& target, FileOps& ops) {
  int rc = ops.rename2(stage, target, RENAME_NOREPLACE);
  // NFS and others without the flag; a rename never replaces a folder that holds files.
  if (rc != 0 && (errno == EINVAL || errno == ENOSYS)) rc = ops.rename(stage, target);
  if (rc == 0) return true;
  if (errno == EEXIST || errno == ENOTEMPTY) return false;
  return fail_errno("cannot rename " + stage + " to " + target);
}

Status exchange_folders(const std::string& stage, const std::string& target, FileOps& ops) {
  if (ops.rename2(stage, target, RENAME_EXCHANGE) == 0) return {};
  if (errno != EINVAL && errno != ENOSYS) return fail_errno("cannot exchange " + stage + " and " + target);
  // For a moment nothing stands there: the old one waits where a sweep finds it and brings it back, until the
  // new one is sure to be on the disk.
  const std::string old = hidden_name("old", target);
  if (ops.rename(target, old) != 0) return fail_errno("cannot rename " + target);
  Status status;
  if (ops.rename(stage, target) != 0)
    status = fail_errno("cannot rename " + stage + " to " + target);
  else if (status = sync_folder(folder_of(target), ops); !status)
    ops.rename(target, stage);
  if (ops.rename(old, status ? stage : target) != 0 && status) status = fail_errno("cannot rename " + old);
  return status;
}

Status publish_model(const std::string& run_folder, const std::string& step_folder, FileOps& ops) {
  const std::string model = run_folder + "/model";
  const std::string stage = fmt::format("{}/.tmp-model-{}-{}", run_folder, ::getpid(), random_hex8());
  if (ops.mkdir(stage, 0777) != 0) return fail_errno("cannot create " + stage);
  Status status;
  for (const std::string& path : paths_in(step_folder)) {
    const std::string name = filename_of(path);
    if (name == kTrainingFile || name == kManifestName || rank_of_file(name) > 0) continue;
    if (ops.link(path, stage + "/" + name) != 0) status = fail_errno("cannot link " + path);
  }
  if (status) status = sync_folder(stage, ops);
  if (status) {
    const auto added = add_folder(stage, model, ops);
    if (!added)
      status = tl::unexpected(added.error());
    else if (!*added)  // an earlier finish() stands there; it goes with the stage
      status = exchange_folders(stage, model, ops);
  }
  const Status synced = sync_folder(run_folder, ops);
  if (status) status = synced;
  // An exchange that the disk does not know yet would find the model's name on what is deleted here.
  if (synced) static_cast<void>(remove_tree(stage, ops));
  return status;
}

}  // namespace bitctl
