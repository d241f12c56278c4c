// A step with tensors of one's own choice, saved for real.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/commit.h"
#include "safetensors/element.h"

namespace bitctl {

struct TestTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

inline TestTensor floats(const std::string& name, std::vector<int64_t> shape,
                         const std::vector<float>& values) {
  return {name, "F32", std::move(shape),
          std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float))};
}

// Saves model.safetensors with these tensors; `side_folder` as in StepImage.
inline Result<Saved> save_tensors(const std::string& checkpoints, uint64_t step,
                                  const std::vector<TestTensor>& tensors,
                                  const std::string& side_folder = {}) {
  std::vector<TensorInfo> infos;
  for (const TestTensor& t : tensors) infos.push_back({t.name, t.dtype, t.shape});
  if (auto laid = lay_out(infos); !laid) return tl::unexpected(laid.error());
  std::string data;
  for (const TensorInfo& info : infos)
    for (const TestTensor& t : tensors)
      if (t.name == info.name) data += t.bytes;
  const size_t room = (data.size() / 4096 + 1) * 4096;
  const std::unique_ptr<char, void (*)(void*)> memory(static_cast<char*>(std::aligned_alloc(4096, room)),
                                                      std::free);
  std::memset(memory.get(), 0, room);
  std::memcpy(memory.get(), data.data(), data.size());
  FileImage file;
  file.name = kModelFile;
  file.header = *build_header(infos, {{"format", "pt"}}, 4096);
  file.table = *parse_header(file.header, 4096 + data.size());
  file.data = memory.get();
  StepImage image;
  image.run = "test-run";
  image.step = step;
  image.attempt = 1;
  image.files.push_back(std::move(file));
  image.side_folder = side_folder;
  SaveOptions options;
  options.check_tensors = [](const std::vector<FileImage>&) -> Result<std::string> { return "test"; };
  return save_step(checkpoints, image, options);
}

}  // namespace bitctl
