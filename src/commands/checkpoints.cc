#include <fmt/format.h>

#include <cstdio>
#include <filesystem>

#include "base/exit_code.h"
#include "base/install_layout.h"
#include "base/replace_file.h"
#include "base/text.h"
#include "base/visible_text.h"
#include "checkpoint/catalog.h"
#include "commands/commands.h"
#include "commands/control.h"
#include "pulse/view.h"

namespace bitctl {
namespace {

struct CheckpointOptions {
  std::string target;
  bool json = false;
};

std::string metrics_text(const Json& metrics) {
  std::string text;
  for (const auto& [name, value] : metrics.items())
    text += fmt::format("{}{} {:.4g}", text.empty() ? "" : ", ", name, value.get<double>());
  return text;
}

int list(const CheckpointOptions& options) {
  const auto folder = find_run(options.target, absolute_path("."));
  if (!folder) return complain(folder.error(), kNoSuchRun);
  const int64_t now = unix_seconds(system_clock().wall());
  for (const StepFolder& step : step_folders(folder->checkpoints())) {
    const auto manifest = inspect_step(step);
    if (options.json) {
      Json row = {{"step", step.step}, {"path", step.path}, {"complete", manifest.has_value()}};
      if (manifest)
        row.update({{"bytes", manifest->bytes()},
                    {"created", manifest->created},
                    {"attempt", manifest->attempt},
                    {"metrics", manifest->metrics},
                    {"non_finite", manifest->non_finite},
                    {"tensor_check", manifest->tensor_check}});
      else
        row["reason"] = manifest.error().message;
      std::printf("%s\n", dump_line(row).c_str());
    } else if (manifest) {
      fmt::print("step {:<12} {:>10}  {:<9} {}{}\n", step.step, format_bytes(manifest->bytes()),
                 age_text(manifest->created, now), visible_text(metrics_text(manifest->metrics)),
                 manifest->non_finite.empty() ? "" : "  NOT FINITE");
    } else {
      fmt::print("step {:<12} damaged: {}\n", step.step, visible_text(manifest.error().message));
    }
  }
  return kOk;
}

bool say(const std::string& what, const Status& status, bool json) {
  if (json) {
    Json row = {{"path", what}, {"good", status.has_value()}};
    if (!status) row["reason"] = status.error().message;
    std::printf("%s\n", dump_line(row).c_str());
  } else {
    std::printf("%s: %s\n", visible_text(what).c_str(),
                status ? "good" : ("damaged: " + visible_text(status.error().message)).c_str());
  }
  return status.has_value();
}

template <typename T>
Status verdict(Result<T>&& result) {
  if (result) return {};
  return tl::unexpected(std::move(result.error()));
}

// A step's folder, any other folder's safetensors files, or a lone file.
int verify_path(const std::string& path, bool json) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error))
    return say(path, verdict(verify_tensor_file(path)), json) ? kOk : kFailed;
  if (const auto step = step_of_folder_name(filename_of(path)))
    return say(path, verdict(verify_step({*step, path})), json) ? kOk : kFailed;
  bool good = true;
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
    if (entry.path().extension() != ".safetensors") continue;
    ++files;
    good = say(entry.path(), verdict(verify_tensor_file(entry.path())), json) && good;
  }
  if (files == 0)
    return complain({ErrorKind::not_found, path + ": no checkpoint and no .safetensors file in it"}, kFailed);
  return good ? kOk : kFailed;
}

int verify(const CheckpointOptions& options) {
  const std::string path = absolute_path(options.target);
  std::error_code error;
  const bool is_run = std::filesystem::exists(path + "/run.json", error);
  if (!options.target.empty() && !is_run && std::filesystem::exists(path, error))
    return verify_path(path, options.json);
  const auto folder = find_run(options.target, absolute_path("."));
  if (!folder) return complain(folder.error(), kNoSuchRun);
  const auto steps = step_folders(folder->checkpoints());
  if (steps.empty()) return complain({ErrorKind::not_found, folder->id() + " has no checkpoint"}, kFailed);
  bool good = true;
  for (const StepFolder& step : steps)
    good = say(step.path, verdict(verify_step(step)), options.json) && good;
  return good ? kOk : kFailed;
}

int save(const CheckpointOptions& options) {
  const auto folder = find_run(options.target, absolute_path("."));
  if (!folder) return complain(folder.error(), kNoSuchRun);
  auto control = ControlConnection::open(*folder);
  if (!control) return complain(control.error(), kFailed);
  if (auto status = control->ask({{"type", "save"}}); !status) return complain(status.error(), kFailed);
  std::printf("%s saves at its next step boundary\n", folder->id().c_str());
  return kOk;
}

void add(CLI::App& app, Action& action, const char* name, const char* help, const char* target_help,
         int (*run)(const CheckpointOptions&)) {
  auto options = std::make_shared<CheckpointOptions>();
  CLI::App* command = app.add_subcommand(name, help);
  command->add_option("TARGET", options->target, target_help);
  command->add_flag("--json", options->json, "One JSON object a line");
  command->callback(
      [options, &action, run] { action = [options, run] { return after_output(run(*options)); }; });
}

}  // namespace

void add_checkpoints_command(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("checkpoints", "What a run has saved");
  command->require_subcommand(1);
  const char* run = "Run id, its unique prefix, or folder; the newest run where left out";
  add(*command, action, "ls", "List them, newest first", run, list);
  add(*command, action, "verify", "Read every byte and compare it with the manifest",
      "A run, a checkpoint's folder, or any .safetensors file", verify);
  add(*command, action, "save", "Ask a run in progress for one now", run, save);
}

}  // namespace bitctl
