#include "writer/slot_image.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/strict_json.h"

namespace bitctl {
namespace {

Result<FileImage> image_of_file(const ArenaFile& region, const char* memory, uint64_t used) {
  const auto bad = [&](const std::string& why) {
    return fail(ErrorKind::invalid, "snapshot of " + region.name + ": " + why);
  };
  if (used < 8 || used > region.header_bytes + region.data_bytes) return bad("its size is out of range");
  const auto header_bytes = header_size({memory, 8}, used);
  if (!header_bytes) return bad(header_bytes.error().message);
  if (*header_bytes != region.header_bytes) return bad("the header does not fill its region");
  FileImage image;
  image.name = region.name;
  image.header.assign(memory, *header_bytes);
  // Whether shape × dtype fits the bytes is asked of the engine, which views every tensor.
  auto table = parse_header(image.header, used, Strictness::strict, Extents::leave);
  if (!table) return bad(table.error().message);
  image.table = std::move(*table);
  image.data = memory + region.header_bytes;
  image.frozen = image.table.metadata_value(kFrozenKey) == "true";
  return image;
}

// A hash as the trainer names the folder of its side files.
bool is_side_name(const std::string& name) {
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  });
}

Status add_files(const SlotPart& part, std::vector<FileImage>& files) {
  const auto& [layout, memory, slot] = part;
  for (size_t i = 0; i < layout.files.size(); ++i) {
    auto file = image_of_file(layout.files[i], memory + layout.offset_of(i), bitctl_load64(&slot.used[i]));
    if (!file) return forward(std::move(file));
    files.push_back(std::move(*file));
  }
  return {};
}

}  // namespace

Result<StepImage> image_of_slots(const std::vector<SlotPart>& parts, const std::string& run_id,
                                 const std::string& checkpoints) {
  const bitctl_slot& first = parts.front().slot;
  StepImage image;
  image.run = run_id;
  image.step = bitctl_load64(&first.step);
  image.attempt = bitctl_load32(&first.attempt);
  image.world_size = static_cast<uint32_t>(parts.size());
  for (const SlotPart& part : parts)
    if (auto status = add_files(part, image.files); !status) return forward(std::move(status));
  for (const FileImage& file : image.files) {
    if (rank_of_file(file.name) != 0) continue;
    const std::string text = file.table.metadata_value("bitctl");
    if (text.empty()) continue;
    const auto facts = parse_strict_json(text);
    if (!facts || !facts->is_object())
      return fail(ErrorKind::invalid, "snapshot: metadata 'bitctl' is no JSON object");
    if (const auto metrics = facts->find("metrics"); metrics != facts->end() && metrics->is_object())
      for (const auto& [name, value] : metrics->items())
        if (value.is_number()) image.metrics[name] = value;
    if (const std::string side = get_text(*facts, "side_files"); is_side_name(side))
      image.side_folder = checkpoints + "/.side/" + side;
  }
  return image;
}

}  // namespace bitctl
