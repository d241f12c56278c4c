#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <cstdio>

#include "base/exit_code.h"
#include "base/text.h"
#include "base/visible_text.h"
#include "checkpoint/diff.h"
#include "checkpoint/pins.h"
#include "commands/checkpoint_steps.h"
#include "pulse/view.h"

namespace bitctl {
namespace {

struct LookOptions {
  StepWords words;
  bool json = false;
};

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

Json row_of(const StepFolder& step, const Manifest& manifest, bool pinned) {
  Json row = {{"step", step.step},
              {"path", step.path},
              {"run", manifest.run},
              {"attempt", manifest.attempt},
              {"world_size", manifest.world_size},
              {"created", manifest.created},
              {"bytes", manifest.bytes()},
              {"pinned", pinned},
              {"metrics", manifest.metrics},
              {"tensor_check", manifest.tensor_check},
              {"non_finite", manifest.non_finite},
              {"files", Json::array()},
              {"side_files", Json::array()}};
  for (const ManifestFile& file : manifest.files) {
    Json tensors = Json::array();
    for (const ManifestTensor& t : file.tensors)
      tensors.push_back({{"name", t.info.name},
                         {"dtype", t.info.dtype},
                         {"shape", t.info.shape},
                         {"bytes", t.info.bytes()},
                         {"xxh3", t.xxh3}});
    row["files"].push_back({{"name", file.name}, {"bytes", file.bytes}, {"tensors", std::move(tensors)}});
  }
  for (const ManifestSideFile& file : manifest.side_files)
    row["side_files"].push_back({{"name", file.name}, {"bytes", file.bytes}, {"xxh3", file.xxh3}});
  return row;
}

std::string checked_text(const Manifest& manifest) {
  const std::string by = manifest.tensor_check == "none" ? "not by libtorch" : manifest.tensor_check;
  if (manifest.non_finite.empty()) return by + ": all tensors are finite";
  return fmt::format("{}: NOT FINITE: {}", by,
                     visible_text(fmt::format("{}", fmt::join(manifest.non_finite, ", "))));
}

void print_step(const StepFolder& step, const Manifest& manifest, bool pinned) {
  fmt::print("step {} of {}{}\n", step.step, visible_text(manifest.run), pinned ? ", pinned" : "");
  fmt::print("  saved    {}, attempt {}, {}\n",
             age_text(manifest.created, unix_seconds(system_clock().wall())), manifest.attempt,
             format_bytes(manifest.bytes()));
  fmt::print("  checked  by {}\n", checked_text(manifest));
  if (manifest.world_size > 1) fmt::print("  ranks    {}\n", manifest.world_size);
  for (const auto& [name, value] : manifest.metrics.items())
    fmt::print("  metric   {} {}\n", visible_text(name), dump_line(value));
  for (const ManifestSideFile& file : manifest.side_files)
    fmt::print("  beside   {} ({})\n", visible_text(file.name), format_bytes(file.bytes));
  for (const ManifestFile& file : manifest.files) {
    fmt::print("{}: {}, {} tensors\n", visible_text(file.name), format_bytes(file.bytes),
               file.tensors.size());
    for (const ManifestTensor& t : file.tensors)
      fmt::print("  {:<6} {:<20} {:>10}  {}\n", t.info.dtype, shape_text(t.info.shape),
                 format_bytes(t.info.bytes()), visible_text(t.info.name));
  }
}

int show(const LookOptions& options) {
  const auto run = run_of(options.words.run());
  if (!run) return run.error();
  const auto step = step_of(*run, options.words.word(0));
  if (!step) return step.error();
  const auto manifest = inspect_step(*step);
  if (!manifest) return complain(manifest.error(), exit_code_of(manifest.error()));
  const bool pinned = is_pinned(run->checkpoints(), step->step);
  if (options.json)
    std::printf("%s\n", dump_line(row_of(*step, *manifest, pinned)).c_str());
  else
    print_step(*step, *manifest, pinned);
  return kOk;
}

// JSON has no infinity; a sum that overflowed is null.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json side_of(const TensorSide& side) {
  return {{"dtype", side.dtype}, {"shape", side.shape}, {"nan", side.nan}, {"infinite", side.infinite}};
}

Json row_of(const TensorChange& change) {
  Json row = {{"file", change.file}, {"name", change.name}, {"same", change.same}};
  if (change.a) row["a"] = side_of(*change.a);
  if (change.b) row["b"] = side_of(*change.b);
  if (change.changed) row["changed"] = *change.changed;
  if (change.delta) {
    row["norm"] = number(change.delta->norm);
    row["max"] = number(change.delta->max);
    if (change.delta->norm_of_a) row["norm_of_a"] = number(*change.delta->norm_of_a);
  }
  return row;
}

std::string not_finite_text(const TensorChange& change) {
  const auto text = [](const char* what, uint64_t a, uint64_t b) {
    return a == 0 && b == 0 ? "" : fmt::format("  {} {} -> {}", what, a, b);
  };
  const TensorSide none;
  const TensorSide& a = change.a ? *change.a : none;
  const TensorSide& b = change.b ? *change.b : none;
  return text("NaN", a.nan, b.nan) + text("infinite", a.infinite, b.infinite);
}

void print_change(const TensorChange& change) {
  std::string what;
  if (!change.a || !change.b) {
    const TensorSide& side = change.a ? *change.a : *change.b;
    what = fmt::format("only in {}: {} {}", change.a ? "A" : "B", side.dtype, shape_text(side.shape));
  } else if (change.a->shape != change.b->shape || change.a->dtype != change.b->dtype) {
    what = fmt::format("{} {} -> {} {}", change.a->dtype, shape_text(change.a->shape), change.b->dtype,
                       shape_text(change.b->shape));
  }
  if (change.delta) {
    if (!what.empty()) what += ", ";
    what += fmt::format("norm {:<10.4g} max {:<10.4g}", change.delta->norm, change.delta->max);
    if (change.delta->norm_of_a.value_or(0) > 0)
      what += fmt::format(" relative {:<10.4g}", change.delta->norm / *change.delta->norm_of_a);
  } else if (change.changed) {
    what += fmt::format("{} elements differ", *change.changed);
  }
  fmt::print("{}{}  {}: {}\n", what, not_finite_text(change), visible_text(change.file),
             visible_text(change.name));
}

int diff(const LookOptions& options) {
  const auto run = run_of(options.words.run());
  if (!run) return run.error();
  const auto a = step_of(*run, options.words.word(0));
  if (!a) return a.error();
  const auto b = step_of(*run, options.words.word(1));
  if (!b) return b.error();
  size_t tensors = 0;
  size_t changed = 0;
  const auto status = diff_steps(*a, *b, [&](const TensorChange& change) {
    ++tensors;
    changed += !change.same;
    if (options.json)
      std::printf("%s\n", dump_line(row_of(change)).c_str());
    else if (!change.same)
      print_change(change);
  });
  if (!status) return complain(status.error(), exit_code_of(status.error()));
  if (!options.json)
    fmt::print("{} of {} tensors differ between step {} and step {}\n", changed, tensors, a->step, b->step);
  return kOk;
}

void add(CLI::App& app, Action& action, const char* name, const char* help, const char* words,
         const char* words_help, int (*run)(const LookOptions&)) {
  auto options = std::make_shared<LookOptions>();
  CLI::App* command = app.add_subcommand(name, help);
  add_step_words(*command, options->words, words, words_help);
  command->add_flag("--json", options->json, "One JSON object a line");
  command->callback(
      [options, &action, run] { action = [options, run] { return after_output(run(*options)); }; });
}

}  // namespace

void add_show_command(CLI::App& app, Action& action) {
  add(app, action, "show", "What a step holds: metrics, files, tensors, and who checked it", "STEP",
      "STEP: a number, newest or best", show);
}

void add_diff_command(CLI::App& app, Action& action) {
  add(app, action, "diff", "What changed from step A to step B, tensor by tensor", "A B",
      "A, B: a number, newest or best", diff);
}

}  // namespace bitctl
