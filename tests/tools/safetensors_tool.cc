// What the library makes of safetensors files, for tests that compare it with Hugging Face's package.
//
//   safetensors_tool read FILE             the header as one line of JSON
//   safetensors_tool rewrite FILE TO       the same tensors, laid out and written anew by build_header
//   safetensors_tool verdicts < PATHS      per line of input: "ok", or the reason of each strictness
#include <cstdio>
#include <fstream>
#include <iostream>

#include "base/strict_json.h"
#include "safetensors/tensor_file.h"

namespace {

using namespace bitctl;

int complain(const Error& error) {
  std::fprintf(stderr, "%s\n", error.message.c_str());
  return 1;
}

int read(const std::string& path) {
  const auto file = TensorFile::open(path);
  if (!file) return complain(file.error());
  Json json{{"metadata", Json::object()}, {"tensors", Json::object()}};
  for (const auto& [key, value] : (*file)->header().metadata) json["metadata"][key] = value;
  for (const auto& tensor : (*file)->header().tensors)
    json["tensors"][tensor.name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {tensor.begin, tensor.end}}};
  std::puts(dump_line(json).c_str());
  return 0;
}

int rewrite(const std::string& path, const std::string& to) {
  const auto file = TensorFile::open(path);
  if (!file) return complain(file.error());
  const TensorHeader& header = (*file)->header();
  std::vector<TensorInfo> tensors = header.tensors;
  if (auto laid_out = lay_out(tensors); !laid_out) return complain(laid_out.error());
  const auto text = build_header(tensors, header.metadata);
  if (!text) return complain(text.error());
  std::ofstream out(to, std::ios::binary);
  out << *text;
  for (const auto& tensor : tensors) out << (*file)->bytes(*header.find(tensor.name));
  return out.flush() ? 0 : 1;
}

std::string verdict(const std::string& path, Strictness strictness) {
  const auto file = TensorFile::open(path, {.strictness = strictness});
  return file ? "ok" : file.error().message;
}

int verdicts() {
  for (std::string path; std::getline(std::cin, path);) {
    const Json line{{"strict", verdict(path, Strictness::strict)},
                    {"compat", verdict(path, Strictness::compat)}};
    std::puts(dump_line(line).c_str());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.size() == 2 && args[0] == "read") return read(args[1]);
  if (args.size() == 3 && args[0] == "rewrite") return rewrite(args[1], args[2]);
  if (args.size() == 1 && args[0] == "verdicts") return verdicts();
  std::fputs("usage: safetensors_tool read FILE | rewrite FILE TO | verdicts < PATHS\n", stderr);
  return 2;
}
