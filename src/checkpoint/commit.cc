#include "checkpoint/commit.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
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

TensorDigests digests_of(const FileImage& image) {
  std::vector<const TensorInfo*> tensors;
  for (const TensorInfo& tensor : image.table.tensors) tensors.push_back(&tensor);
  return TensorDigests(std::move(tensors), image.data, TensorDigests::Values::checked);
}

ManifestFile describe(const FileImage& image, const TensorDigests& digests) {
  ManifestFile file;
  file.name = image.name;
  file.header_bytes = image.header.size();
  file.bytes = image.header.size() + image.table.data_bytes;
  file.header_xxh3 = digest_of(image.header);
  for (size_t i = 0; i < image.table.tensors.size(); ++i)
    file.tensors.push_back({image.table.tensors[i], digests.done()[i]});
  return file;
}

// Writes the images, and tells of them in the manifest.
Status write_images(Stage& stage, const StepImage& image, const SaveOptions& options, Manifest& manifest) {
  std::vector<PageCopy> headers;
  std::vector<StageFile> files;
  std::vector<TensorDigests> digests;
  for (const FileImage& file : image.files) {
    headers.emplace_back(file.header);
    files.push_back({file.name, headers.back().view(), {file.data, file.table.data_bytes}});
    digests.push_back(digests_of(file));
  }
  const StageWork work{[&](size_t file, uint64_t end) { digests[file].advance(end); }, options.quiet};
  if (auto status = stage.write(files, work); !status) return status;
  for (size_t i = 0; i < image.files.size(); ++i) {
    const FileImage& file = image.files[i];
    digests[i].advance(file.table.data_bytes);  // a file without data has no block that brings its tensors
    manifest.files.push_back(describe(file, digests[i]));
    for (const size_t tensor : digests[i].non_finite())
      manifest.non_finite.push_back(file.name + ":" + file.table.tensors[tensor].name);
  }
  return {};
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

// Fills the stage; the manifest is the last file in it. All of it is durable then.
Result<Manifest> fill_stage(const std::string& path, const StepImage& image, const SaveOptions& options,
                            const std::string& checked_by, FileOps& ops) {
  Manifest manifest;
  manifest.run = image.run;
  manifest.step = image.step;
  manifest.attempt = image.attempt;
  manifest.created = unix_seconds((options.clock ? *options.clock : system_clock()).wall());
  manifest.tensor_check = checked_by;
  manifest.metrics = image.metrics;
  Stage stage(path, ops);
  if (auto status = write_images(stage, image, options, manifest); !status) return forward(std::move(status));
  auto side_files = link_side_files(image.side_folder, path, ops);
  if (!side_files) return forward(std::move(side_files));
  manifest.side_files = std::move(*side_files);
  const PageCopy text(to_bytes(manifest));
  if (auto status = stage.write({{kManifestName, text.view(), {}}}); !status)
    return forward(std::move(status));
  if (auto status = stage.sync(); !status) return forward(std::move(status));
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

  std::string checked_by = "none";
  if (options.check_tensors) {
    auto checked = options.check_tensors(image.files);
    if (!checked) return forward(std::move(checked));
    checked_by = std::move(*checked);
  }

  const std::string stage = checkpoints + "/" + stage_name(image.step);
  if (ops.mkdir(stage, 0777) != 0) return fail_errno("cannot create " + stage);
  auto manifest = fill_stage(stage, image, options, checked_by, ops);
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

bool worth_another_try(const Error& error) {
  return error.kind != ErrorKind::invalid && error.kind != ErrorKind::damaged;
}

Duration retry_delay(int failures) {
  return std::chrono::seconds(std::min(30, 1 << std::clamp(failures - 1, 0, 5)));
}

}  // namespace bitctl
