#include "checkpoint/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/visible_text.h"
#include "checkpoint/arena.h"
#include "checkpoint/digest.h"

namespace bitctl {
namespace {

constexpr std::string_view kDigestKey = ",\"digest\":\"xxh3-128:";

Json to_json(const ManifestFile& file) {
  Json tensors = Json::array();
  for (const ManifestTensor& tensor : file.tensors)
    tensors.push_back({{"name", tensor.info.name},
                       {"dtype", tensor.info.dtype},
                       {"shape", tensor.info.shape},
                       {"begin", tensor.info.begin},
                       {"end", tensor.info.end},
                       {"xxh3", tensor.xxh3}});
  return {{"name", file.name},
          {"bytes", file.bytes},
          {"header_bytes", file.header_bytes},
          {"header_xxh3", file.header_xxh3},
          {"tensors", std::move(tensors)}};
}

ManifestFile file_from(const Json& json) {
  ManifestFile file;
  json.at("name").get_to(file.name);
  json.at("bytes").get_to(file.bytes);
  json.at("header_bytes").get_to(file.header_bytes);
  json.at("header_xxh3").get_to(file.header_xxh3);
  for (const Json& entry : json.at("tensors")) {
    ManifestTensor tensor;
    entry.at("name").get_to(tensor.info.name);
    entry.at("dtype").get_to(tensor.info.dtype);
    entry.at("shape").get_to(tensor.info.shape);
    entry.at("begin").get_to(tensor.info.begin);
    entry.at("end").get_to(tensor.info.end);
    entry.at("xxh3").get_to(tensor.xxh3);
    file.tensors.push_back(std::move(tensor));
  }
  return file;
}

// A name that stays inside its folder.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

// What is wrong with a file's numbers; empty where nothing is.
std::string problem_of(const ManifestFile& file) {
  constexpr uint64_t kLargest = uint64_t{1} << 56;
  if (!is_plain_name(file.name)) return "a file name that leaves the folder";
  if (file.bytes > kLargest || file.header_bytes < 8 || file.header_bytes > file.bytes)
    return file.name + ": sizes that no file has";
  uint64_t end = 0;
  for (const ManifestTensor& tensor : file.tensors) {
    if (tensor.info.begin != end || tensor.info.end < tensor.info.begin ||
        tensor.info.end > file.data_bytes())
      return fmt::format("{}: tensor {} does not follow the one before it", file.name,
                         visible_text(tensor.info.name));
    end = tensor.info.end;
  }
  return end == file.data_bytes() ? "" : file.name + ": the tensors do not cover the file";
}

}  // namespace

bool is_model_file(std::string_view name) {
  // As printf would write them, a digit for each 0.
  constexpr std::string_view kPart = "model-00000-of-00000.safetensors";
  const auto fits = [](char c, char pattern) { return pattern == '0' ? c >= '0' && c <= '9' : c == pattern; };
  return name == kModelFile || std::equal(name.begin(), name.end(), kPart.begin(), kPart.end(), fits);
}

const ManifestFile* Manifest::file(std::string_view name) const {
  const auto found = std::find_if(files.begin(), files.end(), [&](const auto& f) { return f.name == name; });
  return found == files.end() ? nullptr : &*found;
}

uint64_t Manifest::bytes() const {
  uint64_t sum = 0;
  for (const ManifestFile& f : files) sum += f.bytes;
  for (const ManifestSideFile& f : side_files) sum += f.bytes;
  return sum;
}

std::string to_bytes(const Manifest& manifest) {
  Json json = {{"format", kManifestFormat},   {"run", manifest.run},
               {"step", manifest.step},       {"attempt", manifest.attempt},
               {"created", manifest.created}, {"tensor_check", manifest.tensor_check},
               {"metrics", manifest.metrics}, {"non_finite", manifest.non_finite},
               {"files", Json::array()},      {"side_files", Json::array()}};
  if (manifest.world_size > 1) json["world_size"] = manifest.world_size;
  for (const ManifestFile& file : manifest.files) json["files"].push_back(to_json(file));
  for (const ManifestSideFile& file : manifest.side_files)
    json["side_files"].push_back({{"name", file.name}, {"bytes", file.bytes}, {"xxh3", file.xxh3}});
  std::string text = dump_line(json);
  text.pop_back();  // the closing brace comes after the digest
  const std::string digest = digest_of(text);
  return fmt::format("{}{}{}\"}}\n", text, kDigestKey, digest);
}

Result<Manifest> parse_manifest(std::string_view bytes, const std::string& path) {
  const auto damaged = [&](const std::string& why) { return fail(ErrorKind::damaged, path + ": " + why); };
  const size_t key = bytes.rfind(kDigestKey);
  if (key == std::string_view::npos)
    return damaged("no digest at the end; the file is cut or is no manifest");
  const std::string expected = fmt::format("{}{}\"}}\n", kDigestKey, digest_of(bytes.substr(0, key)));
  if (bytes.substr(key) != expected) return damaged("the digest does not match the text");
  const auto json = parse_strict_json(bytes, 16);
  if (!json) return damaged(fmt::format("byte {}: {}", json.error().byte, json.error().reason));
  try {
    if (json->at("format").get<std::string>() != kManifestFormat)
      return damaged("format " + dump_line(json->at("format")) + " is not known to this bitctl");
    Manifest manifest;
    json->at("run").get_to(manifest.run);
    json->at("step").get_to(manifest.step);
    json->at("attempt").get_to(manifest.attempt);
    json->at("created").get_to(manifest.created);
    json->at("tensor_check").get_to(manifest.tensor_check);
    manifest.metrics = json->at("metrics");
    json->at("non_finite").get_to(manifest.non_finite);
    manifest.world_size = json->value("world_size", 1u);
    for (const Json& file : json->at("files")) manifest.files.push_back(file_from(file));
    for (const Json& file : json->at("side_files"))
      manifest.side_files.push_back({file.at("name"), file.at("bytes"), file.at("xxh3")});
    for (const ManifestFile& file : manifest.files)
      if (const std::string problem = problem_of(file); !problem.empty()) return damaged(problem);
    if (manifest.world_size < 1 || manifest.world_size > kMaxWorldSize)
      return damaged("a world_size that no run has");
    for (const ManifestSideFile& file : manifest.side_files)
      if (!is_plain_name(file.name)) return damaged("a side file name that leaves the folder");
    return manifest;
  } catch (const Json::exception& error) {
    return damaged(error.what());
  }
}

uint32_t rank_of_file(std::string_view name) {
  for (const std::string_view prefix : {"model-rank-", "training-rank-"}) {
    if (!name.starts_with(prefix)) continue;
    uint32_t rank = 0;
    const char* const end = name.data() + name.size();
    const auto [stop, error] = std::from_chars(name.data() + prefix.size(), end, rank);
    if (error == std::errc() && std::string_view(stop, end) == ".safetensors") return rank;
  }
  return 0;
}

Manifest part_of(const Manifest& manifest, uint32_t rank) {
  Manifest part = manifest;
  std::erase_if(part.files, [&](const ManifestFile& file) { return rank_of_file(file.name) != rank; });
  return part;
}

bool same_content(const ManifestFile& a, const ManifestFile& b) {
  return a.name == b.name && a.bytes == b.bytes && a.header_xxh3 == b.header_xxh3 &&
         std::equal(a.tensors.begin(), a.tensors.end(), b.tensors.begin(), b.tensors.end(),
                    [](const ManifestTensor& x, const ManifestTensor& y) {
                      return x.info == y.info && x.xxh3 == y.xxh3;
                    });
}

}  // namespace bitctl
