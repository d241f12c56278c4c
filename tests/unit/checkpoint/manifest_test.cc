#include "checkpoint/manifest.h"

#include <gtest/gtest.h>

#include "base/strict_json.h"

namespace bitctl {
namespace {

Manifest good_manifest() {
  Manifest manifest;
  manifest.run = "test";
  manifest.step = 7;
  ManifestFile file;
  file.name = kModelFile;
  file.header_bytes = 4096;
  file.bytes = 4096 + 12;
  file.header_xxh3 = "00";
  file.tensors = {{{"a", "F32", {2}, 0, 8}, "00"}, {{"b", "F32", {1}, 8, 12}, "00"}};
  manifest.files = {file};
  return manifest;
}

// Its digest is right: whoever wrote it meant it.
std::string problem_of(const Manifest& manifest) {
  const auto parsed = parse_manifest(to_bytes(manifest), "m");
  return parsed ? "" : parsed.error().message;
}

TEST(Manifest, ComesBackAsItWasWritten) {
  const auto parsed = parse_manifest(to_bytes(good_manifest()), "m");
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->step, 7u);
  EXPECT_TRUE(same_content(parsed->files[0], good_manifest().files[0]));
}

TEST(Manifest, NumbersThatNoFileHasAreDamage) {
  const auto with = [](auto change) {
    Manifest manifest = good_manifest();
    change(manifest.files[0]);
    return problem_of(manifest);
  };
  EXPECT_EQ(with([](ManifestFile&) {}), "");
  EXPECT_EQ(with([](ManifestFile& f) { f.header_bytes = uint64_t{1} << 63; }),
            "m: model.safetensors: sizes that no file has");
  EXPECT_EQ(with([](ManifestFile& f) { f.header_bytes = 5000; }),
            "m: model.safetensors: sizes that no file has");
  EXPECT_EQ(with([](ManifestFile& f) { f.bytes = UINT64_MAX; }),
            "m: model.safetensors: sizes that no file has");
  EXPECT_EQ(with([](ManifestFile& f) { f.tensors[1].info.end = 4; }),
            "m: model.safetensors: tensor b does not follow the one before it");
  EXPECT_EQ(with([](ManifestFile& f) { f.tensors[1].info.end = UINT64_MAX; }),
            "m: model.safetensors: tensor b does not follow the one before it");
  EXPECT_EQ(with([](ManifestFile& f) { f.tensors[1].info.begin = 9; }),
            "m: model.safetensors: tensor b does not follow the one before it");
  EXPECT_EQ(with([](ManifestFile& f) { f.bytes += 1; }),
            "m: model.safetensors: the tensors do not cover the file");
  EXPECT_EQ(with([](ManifestFile& f) { f.name = "../x"; }), "m: a file name that leaves the folder");
}

TEST(Manifest, EveryChangedByteIsSeen) {
  const std::string bytes = to_bytes(good_manifest());
  for (size_t at = 0; at < bytes.size(); ++at) {
    std::string changed = bytes;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    EXPECT_FALSE(parse_manifest(changed, "m")) << at;
  }
}

}  // namespace
}  // namespace bitctl
