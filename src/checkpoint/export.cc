#include "checkpoint/export.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>

#include "base/lock.h"
#include "base/read_file.h"
#include "base/replace_file.h"
#include "base/visible_text.h"
#include "checkpoint/digest.h"
#include "checkpoint/export_plan.h"
#include "checkpoint/export_write.h"
#include "checkpoint/folders.h"
#include "checkpoint/stage.h"
#include "safetensors/tensor_stream.h"

namespace bitctl {
namespace {

namespace fs = std::filesystem;

constexpr Duration kLockLimit = std::chrono::seconds(30);
constexpr const char* kConfigName = "config.json";

struct SideFile {
  std::string name;
  std::string content;
};

// What is needed of the step, once nobody can take it away any more.
struct Source {
  std::vector<ExportSource> model;
  std::vector<SideFile> side_files;
};

Result<Source> open_source(const StepFolder& step) {
  const auto lock = FileLock::acquire(folder_of(step.path) + "/.lock", FileLock::Mode::shared, kLockLimit);
  if (!lock && lock.error().kind != ErrorKind::not_found) return tl::unexpected(lock.error());
  auto manifest = inspect_step(step);
  if (!manifest) return forward(std::move(manifest));
  std::vector<ExportSource> model;
  for (ManifestFile& file : manifest->files) {
    if (!is_model_file(file.name)) continue;
    auto stream = TensorStream::open(step.path + "/" + file.name);
    if (!stream) return forward(std::move(stream));
    if (auto status = check_header(stream->head(), file, stream->path()); !status)
      return forward(std::move(status));
    model.push_back({std::move(*stream), std::move(file)});
  }
  if (model.empty())
    return fail(ErrorKind::invalid,
                fmt::format("{}: no {}: its model is sharded over {} ranks, and only a whole one is exported",
                            step.path, kModelFile, manifest->world_size));
  std::vector<SideFile> side_files;
  for (const ManifestSideFile& side : manifest->side_files) {
    if (side.name == kModelIndex) continue;  // all of it will be in one file
    const std::string path = step.path + "/" + side.name;
    auto content = read_small_file(path, side.bytes);
    if (!content) return forward(std::move(content));
    if (digest_of(*content) != side.xxh3)
      return fail(ErrorKind::damaged, path + ": does not match its digest");
    side_files.push_back({side.name, std::move(*content)});
  }
  return Source{std::move(model), std::move(side_files)};
}

// Only what an earlier export, or somebody's model folder, looks like is ever replaced.
Status check_replaceable(const std::string& folder) {
  std::error_code error;
  if (!fs::is_regular_file(folder + "/" + kModelFile, error))
    return fail(ErrorKind::invalid,
                folder + ": holds no model.safetensors, so it is no export to be replaced");
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (!entry.is_regular_file(error))
      return fail(ErrorKind::invalid,
                  entry.path().string() + ": not a file of an export; nothing is replaced");
  return {};
}

Status check_target(const std::string& folder, bool replace) {
  std::error_code error;
  if (!fs::is_directory(folder_of(folder), error))
    return fail(ErrorKind::not_found, folder_of(folder) + ": no such folder to make the export in");
  struct stat st {};
  if (::lstat(folder.c_str(), &st) != 0) return errno == ENOENT ? Status() : Status(fail_errno(folder));
  if (!replace) return fail(ErrorKind::invalid, folder + ": exists; --force replaces an export");
  if (!S_ISDIR(st.st_mode)) return fail(ErrorKind::invalid, folder + ": exists and is no folder");
  return check_replaceable(folder);
}

std::string stage_prefix(const std::string& folder) { return ".tmp-export-" + filename_of(folder) + "-"; }

// Stages of exports to the same folder whose processes are gone.
void sweep_dead_stages(const std::string& folder, FileOps& ops) {
  std::error_code error;
  const std::string prefix = stage_prefix(folder);
  for (const auto& entry : fs::directory_iterator(folder_of(folder), error)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with(prefix)) continue;
    pid_t pid = 0;
    const char* const digits = name.data() + prefix.size();
    if (std::from_chars(digits, name.data() + name.size(), pid).ec != std::errc() || pid <= 0) continue;
    if (::kill(pid, 0) != 0 && errno == ESRCH) static_cast<void>(remove_tree(entry.path(), ops));
  }
}

Result<Exported> fill_stage(const std::string& stage, const Source& source, const ExportPlan& plan,
                            const Json& config, ExportDtype dtype, FileOps& ops) {
  Exported exported;
  if (auto status = write_exported(stage + "/" + kModelFile, source.model, plan, ops, exported); !status)
    return forward(std::move(status));
  for (const SideFile& side : source.side_files) {
    const bool changed = side.name == kConfigName && config.is_object() && dtype != ExportDtype::as_saved;
    const std::string content = changed ? exported_config(config, dtype).dump(2) + "\n" : side.content;
    if (auto status = write_new_file(stage + "/" + side.name, content, ops); !status)
      return forward(std::move(status));
  }
  if (auto status = sync_folder(stage, ops); !status) return forward(std::move(status));
  return exported;
}

Status publish(const std::string& stage, const std::string& folder, bool replace, FileOps& ops) {
  const auto added = add_folder(stage, folder, ops);
  if (!added) return tl::unexpected(added.error());
  if (!*added) {
    if (auto status = check_target(folder, replace); !status) return status;
    if (auto status = exchange_folders(stage, folder, ops); !status) return status;
  }
  auto status = sync_folder(folder_of(folder), ops);
  // What may be gone after a power cut is not left standing as if it were there.
  if (!status && *added) ops.rename(folder, stage);
  if (!status && !*added) static_cast<void>(exchange_folders(stage, folder, ops));
  return status;
}

}  // namespace

Result<Exported> export_step(const StepFolder& step, const std::string& folder,
                             const ExportOptions& options) {
  FileOps& ops = options.ops != nullptr ? *options.ops : system_file_ops();
  if (auto status = check_target(folder, options.replace); !status) return forward(std::move(status));
  const auto source = open_source(step);
  if (!source) return tl::unexpected(source.error());
  Json config;
  for (const SideFile& side : source->side_files) {
    if (side.name != kConfigName || options.dtype == ExportDtype::as_saved) continue;
    auto json = parse_strict_json(side.content);
    if (!json || !json->is_object())
      return fail(ErrorKind::invalid, step.path + "/config.json: cannot be read, so its dtype cannot be set");
    config = std::move(*json);
  }
  std::vector<TensorInfo> tensors;
  for (const ExportSource& part : source->model)
    for (const TensorInfo& tensor : part.stream.header().tensors) tensors.push_back(tensor);
  const auto plan = plan_export(tensors, options.dtype, config);
  if (!plan) return fail(plan.error().kind, step.path + ": " + plan.error().message);

  sweep_dead_stages(folder, ops);
  const std::string stage =
      fmt::format("{}/{}{}-{}", folder_of(folder), stage_prefix(folder), ::getpid(), random_hex8());
  if (ops.mkdir(stage, 0777) != 0) return fail_errno("cannot create " + stage);
  auto exported = fill_stage(stage, *source, *plan, config, options.dtype, ops);
  if (exported)
    if (auto status = publish(stage, folder, options.replace, ops); !status)
      exported = tl::unexpected(status.error());
  // Where it went wrong, what was begun; after an exchange, the earlier export.
  static_cast<void>(remove_tree(stage, ops));
  if (exported) exported->path = folder;
  return exported;
}

}  // namespace bitctl
