#include <fmt/format.h>

#include <cstdio>

#include "base/exit_code.h"
#include "base/install_layout.h"
#include "base/text.h"
#include "base/visible_text.h"
#include "checkpoint/export.h"
#include "commands/checkpoint_steps.h"

namespace bitctl {
namespace {

struct ExportWords {
  StepWords words;
  std::string dtype;
  bool force = false;
  bool json = false;
};

const std::map<std::string, ExportDtype> kDtypes = {{"bf16", ExportDtype::bf16},
                                                    {"f16", ExportDtype::f16},
                                                    {"f32", ExportDtype::f32},
                                                    {"int8", ExportDtype::int8},
                                                    {"ternary", ExportDtype::ternary}};

void tell(const Exported& done, uint64_t step, bool json) {
  if (json) {
    const Json row = {{"path", done.path},
                      {"step", step},
                      {"bytes", done.bytes},
                      {"tensors", done.tensors},
                      {"cast", done.cast},
                      {"quantized", done.quantized},
                      {"overflowed", done.overflowed}};
    std::printf("%s\n", dump_line(row).c_str());
    return;
  }
  fmt::print("step {} is in {}: {}, {} tensors", step, visible_text(done.path), format_bytes(done.bytes),
             done.tensors);
  if (done.cast > 0) fmt::print(", {} cast", done.cast);
  if (done.quantized > 0) fmt::print(", {} quantized", done.quantized);
  fmt::print("\n");
  if (done.overflowed > 0)
    fmt::print("warning: {} elements are too large for this dtype and became infinite\n", done.overflowed);
}

int run_export(const ExportWords& options) {
  const auto run = run_of(options.words.run());
  if (!run) return run.error();
  const auto step = step_of(*run, options.words.word(0));
  if (!step) return step.error();
  ExportOptions how;
  if (!options.dtype.empty()) how.dtype = kDtypes.at(options.dtype);
  how.replace = options.force;
  const auto done = export_step(*step, absolute_path(options.words.word(1)), how);
  // That a model cannot be had in a dtype, or that the folder is taken, is an answer, no wrong argument.
  if (!done)
    return complain(done.error(),
                    done.error().kind == ErrorKind::invalid ? int{kFailed} : exit_code_of(done.error()));
  tell(*done, step->step, options.json);
  return kOk;
}

}  // namespace

void add_export_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<ExportWords>();
  CLI::App* command =
      app.add_subcommand("export", "Write a step's model to a folder of its own that transformers loads");
  add_step_words(*command, options->words, "STEP DIR", "STEP: a number, newest or best. DIR: the new folder");
  command
      ->add_option("--dtype", options->dtype,
                   "bf16, f16, f32: rounded to nearest; as saved where left out. int8: a scale "
                   "a row, loaded by transformers with the package compressed-tensors. ternary: BitNet's "
                   "packed weights, of BitNet models only, loaded with "
                   "the package accelerate. docs/export.md has the formats")
      ->check(CLI::IsMember(&kDtypes))
      ->option_text("DTYPE");
  command->add_flag("--force", options->force, "Replace the export that stands at DIR");
  command->add_flag("--json", options->json, "One JSON object a line");
  command->callback(
      [options, &action] { action = [options] { return after_output(run_export(*options)); }; });
}

}  // namespace bitctl
