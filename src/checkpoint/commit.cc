#include "checkpoint/commit.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <future>
#include <system_error>

#include "base/read_file.h"
#include "base/replace_file.h"
#include "checkpoint/catalog.h"
#include "checkpoint/digest.h"
#include "checkpoint/folders.h"
#include "checkpoint/stage.h"

namespace bitctl {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxSideFile = size_t{512} << 20;

ManifestFile describe(const FileImage& image) {
  ManifestFile file;
  file.name = image.name;
  file.header_bytes = image.header.size();
  file.bytes = image.header.size() + image.table.data_bytes;
  file.header_xxh3 = digest_of(image.header);
  for (const TensorInfo& tensor : image.table.tensors)
    file.tensors.push_back({tensor, digest_of({image.data + tensor.begin, tensor.bytes()})});
  return file;
}

struct Described {
  TensorFindings findings;
  std::vector<ManifestFile> files;
};

// Hashes and checks the images; runs beside the writing, from the same memory.
Result<Described> look_at(const StepImage& image, const SaveOptions& options) {
  Described described;
  described.findings.checked_by = "none";
  if (options.check_tensors) {
    auto findings = options.check_tensors(image.files);
    if (!findings) return forward(std::move(findings));
    described.findings = std::move(*findings);
  }
  for (const FileImage& file : image.files) described.files.push_back(describe(file));
  return described;
}

Result<std::vector<ManifestSideFile>> link_side_files(const std::string& side_folder,
                                                      const std::string& stage, FileOps& ops) {
  std::vector<ManifestSideFile> files;
  if (side_folder.empty()) return files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(side_folder, error)) {
    if (!entry.is_regular_file(error) || entry.is_symlink(error)) continue;
    const std::string name = entry.path().filename();
    const auto content = read_small_file(entry.path(), kMaxSideFile);
    if (!content) return tl::unexpected(content.error());
    if (ops.link(entry.path(), stage + "/" + name) != 0)
      return fail_errno("cannot link " + entry.path().string());
    files.push_back({name, content->size(), digest_of(*content)});
  }
  if (error) return fail_errno("cannot read " + side_folder, error.value());
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return files;
}

// Fills the stage; the manifest is the last file in it.
Result<Manifest> fill_stage(const std::string& stage, const StepImage& image, const SaveOptions& options,
                            FileOps& ops) {
  auto looking = std::async(std::launch::async, [&] { return look_at(image, options); });
  Status written;
  for (const FileImage& file : image.files) {
    const PageCopy header(file.header);
    written = write_direct(stage + "/" + file.name, {header.view(), {file.data, file.table.data_bytes}}, ops);
    if (!written) break;
  }
  auto described = looking.get();
  if (!described) return forward(std::move(described));
  if (!written) return forward(std::move(written));
  auto side_files = link_side_files(image.side_folder, stage, ops);
  if (!side_files) return forward(std::move(side_files));

  Manifest manifest;
  manifest.run = image.run;
  manifest.step = image.step;
  manifest.attempt = image.attempt;
  manifest.created = unix_seconds((options.clock ? *options.clock : system_clock()).wall());
  manifest.tensor_check = described->findings.checked_by;
  manifest.metrics = image.metrics;
  manifest.non_finite = described->findings.non_finite;
  manifest.files = std::move(described->files);
  manifest.side_files = std::move(*side_files);
  if (auto status = write_new_file(stage + "/" + kManifestName, to_bytes(manifest), ops); !status)
    return forward(std::move(status));
  if (auto status = sync_folder(stage, ops); !status) return forward(std::move(status));
  return manifest;
}

// The header of training.safetensors holds the state and the metrics, so the files tell those, too.
bool same_content(const Manifest& a, const Manifest& b) {
  const auto same_files = [](const ManifestFile& x, const ManifestFile& y) { return same_content(x, y); };
  const auto same_side_files = [](const ManifestSideFile& x, const ManifestSideFile& y) {
    return x.name == y.name && x.bytes == y.bytes && x.xxh3 == y.xxh3;
  };
  return a.metrics == b.metrics &&
         std::equal(a.files.begin(), a.files.end(), b.files.begin(), b.files.end(), same_files) &&
         std::equal(a.side_files.begin(), a.side_files.end(), b.side_files.begin(), b.side_files.end(),
                    same_side_files);
}

std::string stage_name(uint64_t step) {
  return fmt::format(".tmp-{}-{}-{}", step_folder_name(step), ::getpid(), random_hex8());
}

enum class Published { added, exchanged, unchanged };

// Gives the stage its name. A step that stands there already is exchanged (the newer attempt is right; and
// where it should hold the same, only a read of all of it could tell whether it still does), and set aside
// where it is broken.
Result<Published> publish(const std::string& checkpoints, const std::string& stage, const Manifest& manifest,
                          FileOps& ops) {
  const std::string target = checkpoints + "/" + step_folder_name(manifest.step);
  const auto added = add_folder(stage, target, ops);
  if (!added) return tl::unexpected(added.error());
  if (*added) return Published::added;

  const auto standing = inspect_step({manifest.step, target});
  if (!standing) {
    if (auto moved = set_aside(target, ops); !moved) return forward(std::move(moved));
    if (ops.rename(stage, target) != 0) return fail_errno("cannot rename " + stage + " to " + target);
    return Published::added;
  }
  if (auto status = exchange_folders(stage, target, ops); !status) return forward(std::move(status));
  return same_content(*standing, manifest) ? Published::unchanged : Published::exchanged;
}

// What was not acknowledged must not stand: a second fsync might report success for a name that is not on the
// disk. What stood there before stands there again.
void take_back(Published published, const std::string& stage, const std::string& target, FileOps& ops) {
  if (published == Published::added)
    ops.rename(target, stage);
  else
    static_cast<void>(exchange_folders(stage, target, ops));
}

// A stage that has borne the step's name is deleted when the disk is sure to know that it does no longer;
// else it is left to the next sweep.
void drop(const std::string& stage, FileOps& ops) {
  if (sync_folder(folder_of(stage), ops)) static_cast<void>(remove_tree(stage, ops));
}

}  // namespace

Result<Saved> save_step(const std::string& checkpoints, const StepImage& image, const SaveOptions& options) {
  FileOps& ops = options.ops ? *options.ops : system_file_ops();
  auto writer_lock =
      FileLock::acquire(checkpoints + "/.writer.lock", FileLock::Mode::exclusive, options.writer_limit);
  if (!writer_lock) return forward(std::move(writer_lock));

  const std::string stage = checkpoints + "/" + stage_name(image.step);
  if (ops.mkdir(stage, 0777) != 0) return fail_errno("cannot create " + stage);
  auto manifest = fill_stage(stage, image, options, ops);
  if (!manifest) {
    static_cast<void>(remove_tree(stage, ops));
    return forward(std::move(manifest));
  }

  Saved saved;
  auto lock = FileLock::acquire(checkpoints + "/.lock", FileLock::Mode::exclusive, options.reader_limit);
  if (!lock && lock.error().kind == ErrorKind::locked) {
    saved.reader_in_the_way = lock.error().message;
  } else if (!lock) {
    static_cast<void>(remove_tree(stage, ops));
    return forward(std::move(lock));
  }
  const auto published = publish(checkpoints, stage, *manifest, ops);
  if (!published) {
    drop(stage, ops);
    return tl::unexpected(published.error());
  }
  if (auto status = sync_folder(checkpoints, ops); !status) {
    take_back(*published, stage, checkpoints + "/" + step_folder_name(image.step), ops);
    drop(stage, ops);
    return forward(std::move(status));
  }
  saved.manifest = std::move(*manifest);
  saved.unchanged = *published == Published::unchanged;
  if (options.on_committed) options.on_committed(saved);
  // What an exchange left under the stage's name.
  static_cast<void>(remove_tree(stage, ops));
  if (lock && options.retain) options.retain();
  return saved;
}

}  // namespace bitctl
