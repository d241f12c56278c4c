#include <fmt/format.h>

#include <cstdio>
#include <filesystem>

#include "base/exit_code.h"
#include "base/install_layout.h"
#include "base/replace_file.h"
#include "base/text.h"
#include "base/visible_text.h"
#include "checkpoint/catalog.h"
#include "checkpoint/folders.h"
#include "checkpoint/pins.h"
#include "commands/checkpoint_steps.h"
#include "commands/control.h"
#include "pulse/view.h"

namespace bitctl {
namespace {

struct CheckpointOptions {
  std::string target;
  bool json = false;
  bool deep = false;
};

std::string metrics_text(const Json& metrics) {
  std::string text;
  for (const auto& [name, value] : metrics.items())
    text += fmt::format("{}{} {:.4g}", text.empty() ? "" : ", ", name, value.get<double>());
  return text;
}

// With what it shares with other steps, and without.
std::string size_text(const StepFolder& step, const Manifest& manifest) {
  std::string text = fmt::format("{:>10}", format_bytes(manifest.bytes()));
  if (manifest.file(kModelFile) == nullptr)
    text += fmt::format(" ({} its own)", format_bytes(bytes_freed_by({step.path})));
  return text;
}

int list(const CheckpointOptions& options) {
  const auto folder = find_run(options.target, absolute_path("."));
  if (!folder) return complain(folder.error(), kNoSuchRun);
  const int64_t now = unix_seconds(system_clock().wall());
  for (const StepFolder& step : step_folders(folder->checkpoints())) {
    const auto manifest = inspect_step(step);
    const bool pinned = is_pinned(folder->checkpoints(), step.step);
    if (options.json) {
      Json row = {
          {"step", step.step}, {"path", step.path}, {"complete", manifest.has_value()}, {"pinned", pinned}};
      if (manifest)
        row.update({{"bytes", manifest->bytes()},
                    {"own_bytes", bytes_freed_by({step.path})},
                    {"created", manifest->created},
                    {"attempt", manifest->attempt},
                    {"world_size", manifest->world_size},
                    {"metrics", manifest->metrics},
                    {"non_finite", manifest->non_finite},
                    {"tensor_check", manifest->tensor_check}});
      else
        row["reason"] = manifest.error().message;
      std::printf("%s\n", dump_line(row).c_str());
    } else if (manifest) {
      fmt::print("step {:<12} {}  {:<9} {}{}{}\n", step.step, size_text(step, *manifest),
                 age_text(manifest->created, now), visible_text(metrics_text(manifest->metrics)),
                 manifest->non_finite.empty() ? "" : "  NOT FINITE", pinned ? "  pinned" : "");
    } else {
      fmt::print("step {:<12} damaged: {}\n", step.step, visible_text(manifest.error().message));
    }
  }
  return kOk;
}

// `deep`: every byte was held against a digest.
bool say(const std::string& what, const Status& status, bool deep, bool json) {
  if (json) {
    Json row = {{"path", what}, {"good", status.has_value()}, {"deep", deep}};
    if (!status) row["reason"] = status.error().message;
    std::printf("%s\n", dump_line(row).c_str());
    return status.has_value();
  }
  std::string text = deep ? "good" : "whole";
  if (!status)
    text = (status.error().kind == ErrorKind::damaged ? "damaged: " : "cannot be read: ") +
           visible_text(status.error().message);
  std::printf("%s: %s\n", visible_text(what).c_str(), text.c_str());
  return status.has_value();
}

template <typename T>
Status verdict(Result<T>&& result) {
  if (result) return {};
  return tl::unexpected(std::move(result.error()));
}

Status verify_one(const StepFolder& step, bool deep) {
  return deep ? verdict(verify_step(step)) : verdict(inspect_step(step));
}

// A step's folder, any other folder's safetensors files, or a lone file.
int verify_path(const std::string& path, const CheckpointOptions& options) {
  std::error_code error;
  const auto file = [&](const std::string& one) {
    return say(one, verdict(verify_tensor_file(one)), false, options.json);
  };
  if (!std::filesystem::is_directory(path, error)) return file(path) ? kOk : kFailed;
  if (const auto step = step_of_folder_name(filename_of(path)))
    return say(path, verify_one({*step, path}, options.deep), options.deep, options.json) ? kOk : kFailed;
  bool good = true;
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
    if (entry.path().extension() != ".safetensors") continue;
    ++files;
    good = file(entry.path()) && good;
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
    return verify_path(path, options);
  const auto folder = find_run(options.target, absolute_path("."));
  if (!folder) return complain(folder.error(), kNoSuchRun);
  const auto steps = step_folders(folder->checkpoints());
  if (steps.empty()) return complain({ErrorKind::not_found, folder->id() + " has no checkpoint"}, kFailed);
  bool good = true;
  for (const StepFolder& step : steps) {
    const Status status = verify_one(step, options.deep);
    // Retention of a run in progress may take a step away while it is read.
    if (!status && !std::filesystem::exists(step.path, error)) continue;
    good = say(step.path, status, options.deep, options.json) && good;
  }
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

CLI::App* add(CLI::App& app, Action& action, const char* name, const char* help, const char* target_help,
              const std::shared_ptr<CheckpointOptions>& options, int (*run)(const CheckpointOptions&)) {
  CLI::App* command = app.add_subcommand(name, help);
  command->add_option("RUN", options->target, target_help);
  command->callback(
      [options, &action, run] { action = [options, run] { return after_output(run(*options)); }; });
  return command;
}

}  // namespace

void add_checkpoints_command(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("checkpoints", "What a run has saved");
  command->require_subcommand(1);
  const char* run = "Run id, its unique prefix, or folder; the newest run where left out";
  auto options = std::make_shared<CheckpointOptions>();
  const auto add_json = [&](CLI::App* sub) {
    sub->add_flag("--json", options->json, "One JSON object a line");
    return sub;
  };
  add_json(add(*command, action, "ls", "List them, newest first", run, options, list));
  add_show_command(*command, action);
  add_json(add(*command, action, "verify", "Are they whole? Exit code 1 where one is damaged",
               "A run, a checkpoint's folder, or any .safetensors file; the newest run where left out",
               options, verify))
      ->add_flag("--deep", options->deep, "Read every byte, and name the damaged tensor");
  add_diff_command(*command, action);
  add_export_command(*command, action);
  add_pin_commands(*command, action);
  add_prune_steps_command(*command, action);
  add(*command, action, "save", "Ask a run in progress for one now", run, options, save);
}

}  // namespace bitctl
