#include "checkpoint/commit.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
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

// A step of this run: what is frozen stands there already.
struct Standing {
  std::string path;
  Manifest manifest;
};

std::optional<Standing> newest_of_run(const std::string& checkpoints, const std::string& run) {
  for (const StepFolder& folder : step_folders(checkpoints)) {
    auto manifest = inspect_step(folder);
    if (manifest && manifest->run == run) return Standing{folder.path, std::move(*manifest)};
  }
  return std::nullopt;
}

// The images of one step on their way into the stage, and into the manifest.
class Images {
 public:
  Images(const StepImage& image, const SaveOptions& options) : image_(image), options_(options) {
    for (const FileImage& file : image.files) {
      headers_.emplace_back(file.header);
      digests_.push_back(digests_of(file));
    }
  }

  Status put(Stage& stage, const std::string& checkpoints, Saved& saved) {
    std::optional<Standing> standing;
    if (std::any_of(image_.files.begin(), image_.files.end(), [](const auto& file) { return file.frozen; }))
      standing = newest_of_run(checkpoints, image_.run);
    std::vector<size_t> to_write;
    std::vector<StageFile> files;
    const ManifestFile* refused = nullptr;
    for (size_t i = 0; i < image_.files.size(); ++i) {
      const FileImage& file = image_.files[i];
      const ManifestFile* there = file.frozen && standing ? standing->manifest.file(file.name) : nullptr;
      if (there != nullptr && there->bytes == file.bytes()) {
        const auto linked = stage.link(stage_file(i), standing->path + "/" + file.name, work({i}));
        if (linked) continue;
        if (linked.error().kind == ErrorKind::damaged || linked.error().errno_value == EIO) refused = there;
      }
      to_write.push_back(i);
      files.push_back(stage_file(i));
      saved.written += file.bytes();
    }
    if (auto status = stage.write(files, work(to_write)); !status) return status;
    describe_all(saved.manifest);
    // It was to be the same as now, by its own manifest.
    if (refused != nullptr && same_content(*refused, *saved.manifest.file(refused->name)))
      saved.damaged = standing->path + "/" + refused->name;
    return {};
  }

 private:
  StageFile stage_file(size_t i) const {
    const FileImage& file = image_.files[i];
    return {file.name, headers_[i].view(), {file.data, file.table.data_bytes}};
  }
  // On files of these numbers.
  StageWork work(std::vector<size_t> numbers) {
    return {[this, numbers](size_t file, uint64_t end) { digests_[numbers[file]].advance(end); },
            options_.quiet};
  }
  void describe_all(Manifest& manifest) {
    for (size_t i = 0; i < image_.files.size(); ++i) {
      const FileImage& file = image_.files[i];
      digests_[i].advance(file.table.data_bytes);  // a file without data has no block that brings its tensors
      manifest.files.push_back(describe(file, digests_[i]));
      for (const size_t tensor : digests_[i].non_finite())
        manifest.non_finite.push_back(file.name + ":" + file.table.tensors[tensor].name);
    }
  }

  const StepImage& image_;
  const SaveOptions& options_;
  std::vector<PageCopy> headers_;
  std::vector<TensorDigests> digests_;
};

// Of a model in several files; empty where it is in one.
std::string model_index(const std::vector<FileImage>& files) {
  std::map<std::string, std::string> places;
  uint64_t bytes = 0;
  bool parts = false;
  for (const FileImage& file : files) {
    if (!is_model_file(file.name)) continue;
    parts = parts || file.name != kModelFile;
    bytes += file.table.data_bytes;
    for (const TensorInfo& tensor : file.table.tensors) places[tensor.name] = file.name;
  }
  if (!parts) return {};
  return dump_line({{"metadata", {{"total_size", bytes}}}, {"weight_map", places}}) + "\n";
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
Result<Saved> fill_stage(const std::string& path, const StepImage& image, const SaveOptions& options,
                         const std::string& checked_by, FileOps& ops) {
  Saved saved;
  Manifest& manifest = saved.manifest;
  manifest.run = image.run;
  manifest.step = image.step;
  manifest.attempt = image.attempt;
  manifest.world_size = image.world_size;
  manifest.created = unix_seconds((options.clock ? *options.clock : system_clock()).wall());
  manifest.tensor_check = checked_by;
  manifest.metrics = image.metrics;
  Stage stage(path, ops);
  if (auto status = Images(image, options).put(stage, folder_of(path), saved); !status)
    return forward(std::move(status));
  auto side_files = link_side_files(image.side_folder, path, ops);
  if (!side_files) return forward(std::move(side_files));
  manifest.side_files = std::move(*side_files);
  const PageCopy index(model_index(image.files));
  std::vector<StageFile> texts;
  if (!index.view().empty()) {
    texts.push_back({kModelIndex, index.view(), {}});
    manifest.side_files.push_back({kModelIndex, index.view().size(), digest_of(index.view())});
  }
  const PageCopy text(to_bytes(manifest));
  texts.push_back({kManifestName, text.view(), {}});
  for (const StageFile& file : texts) saved.written += file.header.size();
  if (auto status = stage.write(texts); !status) return forward(std::move(status));
  if (auto status = stage.sync(); !status) return forward(std::move(status));
  return saved;
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
  auto filled = fill_stage(stage, image, options, checked_by, ops);
  if (!filled) {
    static_cast<void>(remove_tree(stage, ops));
    return filled;
  }

  Saved saved = std::move(*filled);
  auto lock = FileLock::acquire(checkpoints + "/.lock", FileLock::Mode::exclusive, options.reader_limit);
  if (!lock && lock.error().kind == ErrorKind::locked) {
    saved.reader_in_the_way = lock.error().message;
  } else if (!lock) {
    static_cast<void>(remove_tree(stage, ops));
    return forward(std::move(lock));
  }
  const auto published = publish(checkpoints, stage, saved.manifest, ops);
  if (!published) {
    drop(stage, ops);
    return tl::unexpected(published.error());
  }
  if (auto status = sync_folder(checkpoints, ops); !status) {
    take_back(*published, stage, checkpoints + "/" + step_folder_name(image.step), ops);
    drop(stage, ops);
    return forward(std::move(status));
  }
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
