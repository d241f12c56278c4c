#include "trainer/image.h"

#include <cmath>
#include <cstring>
#include <unordered_map>

#include "checkpoint/manifest.h"
#include "snapshot/snapshot.h"

namespace bitctl::trainer {
namespace {

constexpr const char* kText = "bitctl.text";

Result<FileLayout> lay_out_file(const char* name, const std::vector<Tensor>& tensors,
                                std::vector<std::pair<std::string, std::string>> metadata) {
  FileLayout file{.name = name, .metadata = std::move(metadata)};
  std::unordered_map<std::string, const void*> data;
  for (const Tensor& tensor : tensors) {
    file.tensors.push_back({tensor.name, tensor.dtype, tensor.shape});
    data[tensor.name] = tensor.data;
  }
  if (auto status = bitctl::lay_out(file.tensors); !status) return forward(std::move(status));
  for (const TensorInfo& tensor : file.tensors) {
    file.from.push_back(data[tensor.name]);
    if (tensor.bytes() > 0 && file.from.back() == nullptr)
      return fail(ErrorKind::invalid, "tensor " + tensor.name + " has no data");
  }
  const auto header = build_header(file.tensors, file.metadata);
  if (!header) return tl::unexpected(header.error());
  file.header_bytes = header->size();
  file.data_bytes = file.tensors.empty() ? 0 : file.tensors.back().end;
  return file;
}

}  // namespace

Result<std::vector<FileLayout>> lay_out_state(const State& state, uint64_t step) {
  Json facts = {{"step", step}, {"metrics", Json::object()}};
  for (const auto& [name, value] : state.metrics)
    if (std::isfinite(value)) facts["metrics"][name] = value;
  auto model = lay_out_file(kModelFile, state.model, {{"format", "pt"}});
  if (!model) return forward(std::move(model));
  auto training = lay_out_file(kTrainingFile, state.training,
                               {{"format", "pt"}, {"bitctl", dump_line(facts)}, {kText, state.text}});
  if (!training) return forward(std::move(training));
  std::vector<FileLayout> files;
  files.push_back(std::move(*model));
  files.push_back(std::move(*training));
  return files;
}

Json regions_for(const std::vector<FileLayout>& files) {
  Json regions = Json::array();
  for (const FileLayout& file : files)
    regions.push_back(
        {{"name", file.name}, {"header_bytes", 2 * file.header_bytes}, {"data_bytes", file.data_bytes}});
  return regions;
}

bool holds(const ArenaLayout& arena, const std::vector<FileLayout>& files) {
  if (arena.files.size() != files.size()) return false;
  for (size_t i = 0; i < files.size(); ++i) {
    const ArenaFile& region = arena.files[i];
    if (region.name != files[i].name || region.header_bytes < files[i].header_bytes ||
        region.data_bytes < files[i].data_bytes)
      return false;
  }
  return true;
}

Result<std::vector<uint64_t>> write_image(const std::vector<FileLayout>& files, const ArenaLayout& arena,
                                          char* memory) {
  std::vector<uint64_t> used;
  std::vector<bitctl_copy> copies;
  for (size_t i = 0; i < files.size(); ++i) {
    const FileLayout& file = files[i];
    const uint64_t region = arena.files[i].header_bytes;
    char* image = memory + arena.offset_of(i);
    const auto header = build_header(file.tensors, file.metadata, region);
    if (!header) return tl::unexpected(header.error());
    std::memcpy(image, header->data(), region);
    for (size_t t = 0; t < file.tensors.size(); ++t)
      copies.push_back(
          {arena.offset_of(i) + region + file.tensors[t].begin, file.from[t], file.tensors[t].bytes()});
    used.push_back(region + file.data_bytes);
  }
  bitctl_snapshot_copy(memory, copies.data(), copies.size());
  return used;
}

Result<Parts> read_image(const ArenaLayout& arena, const uint64_t* used, const char* memory) {
  Parts parts;
  for (size_t i = 0; i < arena.files.size(); ++i) {
    const ArenaFile& region = arena.files[i];
    const char* image = memory + arena.offset_of(i);
    if (used[i] > region.header_bytes + region.data_bytes)
      return fail(ErrorKind::damaged, region.name + ": longer than its place in memory");
    const auto table = parse_header({image, region.header_bytes}, used[i]);
    if (!table) return fail(ErrorKind::damaged, region.name + ": " + table.error().message);
    auto& tensors = is_model_file(region.name) ? parts.model : parts.training;
    for (const TensorInfo& tensor : table->tensors)
      tensors.push_back(
          {tensor.name, tensor.dtype, tensor.shape, image + table->header_bytes + tensor.begin});
    if (region.name == kTrainingFile) parts.text = table->metadata_value(kText);
  }
  return parts;
}

}  // namespace bitctl::trainer
