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

struct TestFile {
  std::string name;
  std::vector<TestTensor> tensors;
};

// Saves these files; `side_folder` as in StepImage.
inline Result<Saved> save_files(const std::string& checkpoints, uint64_t step,
                                const std::vector<TestFile>& files, const std::string& side_folder = {}) {
  using Memory = std::unique_ptr<char, void (*)(void*)>;
  std::vector<Memory> memories;
  StepImage image;
  image.run = "test-run";
  image.step = step;
  image.attempt = 1;
  image.side_folder = side_folder;
  for (const TestFile& file : files) {
    std::vector<TensorInfo> infos;
    for (const TestTensor& t : file.tensors) infos.push_back({t.name, t.dtype, t.shape});
    if (auto laid = lay_out(infos); !laid) return tl::unexpected(laid.error());
    std::string data;
    for (const TensorInfo& info : infos)
      for (const TestTensor& t : file.tensors)
        if (t.name == info.name) data += t.bytes;
    const size_t room = (data.size() / 4096 + 1) * 4096;
    Memory& memory = memories.emplace_back(static_cast<char*>(std::aligned_alloc(4096, room)), std::free);
    std::memset(memory.get(), 0, room);
    std::memcpy(memory.get(), data.data(), data.size());
    const std::string header = *build_header(infos, {{"format", "pt"}}, 4096);
    image.files.push_back({file.name, header, *parse_header(header, 4096 + data.size()), memory.get()});
  }
  SaveOptions options;
  options.check_tensors = [](const std::vector<FileImage>&) -> Result<std::string> { return "test"; };
  return save_step(checkpoints, image, options);
}

inline Result<Saved> save_tensors(const std::string& checkpoints, uint64_t step,
                                  const std::vector<TestTensor>& tensors,
                                  const std::string& side_folder = {}) {
  return save_files(checkpoints, step, {{kModelFile, tensors}}, side_folder);
}

}  // namespace bitctl
