// One save, or one look at what is there, for tests that kill and starve it from outside.
//
//   checkpoint_tool save CHECKPOINTS STEP FILL [--elements N] [--frozen] [--keep N] [--record FILE]
//     A step whose tensors hold nothing but the byte FILL, or the byte f in the part that is --frozen;
//     "acknowledged STEP" the moment it is. --record: the calls.
//   checkpoint_tool load CHECKPOINTS
//     What the next writer finds, by every kind of load: {"step": …, "fill": …, "bad": […]}; step 0: nothing.
//     Exit code 1 where one load takes what another refuses.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>

#include <CLI/CLI.hpp>

#include "checkpoint/catalog.h"
#include "checkpoint/folders.h"
#include "checkpoint/load.h"
#include "checkpoint/retention.h"
#include "checkpoint/step_image.h"
#include "recording_file_ops.h"
#include "safetensors/tensor_file.h"

using namespace bitctl;

namespace {

void say(const std::string& line) {
  [[maybe_unused]] const ssize_t n = ::write(STDOUT_FILENO, (line + "\n").data(), line.size() + 1);
}

std::string line_of(const FileOp& op, const std::map<int, std::string>& paths) {
  using Kind = FileOp::Kind;
  const std::string& opened = op.handle > 0 ? paths.at(op.handle) : op.path;
  switch (op.kind) {
    case Kind::open:
      return op.created ? "create " + op.path : "";
    case Kind::write:
      return fmt::format("write {} {} {}", opened, op.offset, op.bytes.size());
    case Kind::size:
      return fmt::format("size {} {}", opened, op.size);
    case Kind::size_at_least:
      return fmt::format("size_at_least {} {}", opened, op.size);
    case Kind::fsync:
      return "fsync " + opened;
    case Kind::mkdir:
      return "mkdir " + op.path;
    case Kind::link:
      return fmt::format("link {} {}", op.path, op.to);
    case Kind::rename:
      return fmt::format("rename {} {}", op.path, op.to);
    case Kind::exchange:
      return fmt::format("exchange {} {}", op.path, op.to);
    case Kind::unlink:
      return "unlink " + op.path;
    case Kind::rmdir:
      return "rmdir " + op.path;
    case Kind::note:
      break;
  }
  return "";
}

void write_log(const std::vector<FileOp>& log, const std::string& path) {
  std::ofstream out(path);
  std::map<int, std::string> paths;
  for (const FileOp& op : log) {
    if (op.kind == FileOp::Kind::open) paths[op.handle] = op.path;
    if (const std::string line = line_of(op, paths); !line.empty()) out << line << "\n";
  }
}

int save(const std::string& checkpoints, uint64_t step, char fill, size_t elements, bool frozen, int keep,
         const std::string& record) {
  RecordingFileOps recorder(checkpoints);
  FileOps& ops = record.empty() ? system_file_ops() : recorder;
  SaveOptions options;
  options.ops = &ops;
  options.on_committed = [&](const Saved&) { say(fmt::format("acknowledged {}", step)); };
  options.retain = [&] { retain(checkpoints, {.keep_last = keep}, {"test-run", {}, {step}}, ops); };
  const TestStep image =
      frozen ? TestStep::with_frozen(step, fill, elements) : TestStep(step, fill, elements);
  const auto saved = save_step(checkpoints, image.image, options);
  if (!record.empty()) write_log(recorder.log(), record);
  if (!saved) std::fprintf(stderr, "%s\n", saved.error().message.c_str());
  return saved ? 0 : 1;
}

bool holds_only(std::string_view bytes, char fill) {
  return std::all_of(bytes.begin(), bytes.end(), [&](char c) { return c == fill; });
}

// Verified, mapped, and read into memory: '\0' where one of them refuses it.
char fill_of(const StepFolder& folder, const Manifest& manifest) {
  const auto layout = layout_of(manifest, 1);
  if (!layout) return '\0';
  const std::unique_ptr<char, void (*)(void*)> memory(
      static_cast<char*>(std::aligned_alloc(kArenaPage, layout->slot_bytes())), std::free);
  bitctl_slot slot{};
  if (!load_step(folder, manifest, *layout, memory.get(), &slot)) return '\0';
  const size_t last = manifest.files.size() - 1;
  const char step_fill = memory.get()[layout->offset_of(last) + manifest.files[last].header_bytes];
  for (size_t i = 0; i <= last; ++i) {
    const ManifestFile& file = manifest.files[i];
    const char fill = file.name == kFrozenPart ? 'f' : step_fill;
    const std::string_view read(memory.get() + layout->offset_of(i) + file.header_bytes, file.data_bytes());
    const auto mapped = TensorFile::open(folder.path + "/" + file.name, {});
    if (!mapped || !holds_only(read, fill)) return '\0';
    for (const TensorInfo& tensor : (*mapped)->header().tensors)
      if (!holds_only((*mapped)->bytes(tensor), fill)) return '\0';
  }
  return step_fill;
}

int load(const std::string& checkpoints) {
  sweep_stages(checkpoints);
  Json found = {{"step", 0}, {"fill", ""}, {"bad", Json::array()}};
  bool agreed = true;
  for (const StepFolder& folder : step_folders(checkpoints)) {
    const auto verified = verify_step(folder);
    if (!verified) {
      found["bad"].push_back(verified.error().message);
      continue;
    }
    const char fill = fill_of(folder, *verified);
    agreed = agreed && fill != '\0';
    if (found["step"] == 0) found.update({{"step", folder.step}, {"fill", std::string(1, fill)}});
  }
  say(dump_line(found));
  return agreed ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  std::string checkpoints, fill, record;
  uint64_t step = 0;
  size_t elements = 3000;
  bool frozen = false;
  int keep = 2;
  CLI::App app;
  auto* saving = app.add_subcommand("save");
  saving->add_option("checkpoints", checkpoints)->required();
  saving->add_option("step", step)->required();
  saving->add_option("fill", fill)->required();
  saving->add_option("--elements", elements)->check(CLI::Range(1, (1 << 18) - 1));
  saving->add_flag("--frozen", frozen);
  saving->add_option("--keep", keep);
  saving->add_option("--record", record);
  auto* loading = app.add_subcommand("load");
  loading->add_option("checkpoints", checkpoints)->required();
  app.require_subcommand(1);
  CLI11_PARSE(app, argc, argv);
  return *loading ? load(checkpoints) : save(checkpoints, step, fill.at(0), elements, frozen, keep, record);
}
