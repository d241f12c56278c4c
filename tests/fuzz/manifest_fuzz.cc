// manifest.json as the disk gives it back, and one whose digest is right whatever it says.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "checkpoint/digest.h"
#include "checkpoint/load.h"
#include "checkpoint/manifest.h"

using namespace bitctl;

namespace {

void check(bool holds) {
  if (!holds) std::abort();
}

void parse(std::string_view bytes) {
  const auto manifest = parse_manifest(bytes, "manifest.json");
  if (!manifest) return;
  // What is accepted stays inside its files and survives being written.
  for (const ManifestFile& file : manifest->files) {
    check(file.header_bytes <= file.bytes && file.name.find('/') == std::string::npos);
    for (const ManifestTensor& tensor : file.tensors)
      check(tensor.info.begin <= tensor.info.end && tensor.info.end <= file.data_bytes());
  }
  const std::string written = to_bytes(*manifest);
  const auto again = parse_manifest(written, "manifest.json");
  check(again && to_bytes(*again) == written);
  if (const auto layout = layout_of(*manifest, 1)) check(layout->slot_bytes() > 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  parse(text);
  // Else hardly any change would come past the digest: the text up to it, or up to the closing brace.
  const size_t end = std::min(text.rfind(",\"digest\""), text.rfind('}'));
  const std::string body = text.substr(0, end);
  parse(body + ",\"digest\":\"xxh3-128:" + digest_of(body) + "\"}\n");
  return 0;
}
