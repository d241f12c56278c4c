// A step to be saved, without a trainer.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/commit.h"

namespace bitctl {

constexpr const char* kFrozenPart = "model-00001-of-00002.safetensors";
constexpr const char* kTrainedPart = "model-00002-of-00002.safetensors";

// A step whose tensors lie in page-aligned memory, as in a slot of the arena.
class TestStep {
 public:
  explicit TestStep(uint64_t step, char fill = 'a', size_t elements = 3000) : TestStep(Empty(), step) {
    add(kModelFile, "", elements, fill);
    add(kTrainingFile, "", 10, fill);
  }
  // The model is in two parts, and the first one is frozen.
  static TestStep with_frozen(uint64_t step, char fill = 'a', size_t elements = 3000, char frozen = 'f') {
    TestStep made(Empty(), step);
    made.add(kFrozenPart, "frozen.", elements, frozen, {{kFrozenKey, "true"}});
    made.image.files.back().frozen = true;
    made.add(kTrainedPart, "", elements, fill);
    made.add(kTrainingFile, "", 10, fill);
    return made;
  }
  StepImage image;

 private:
  struct Empty {};
  TestStep(Empty, uint64_t step) {
    image.run = "test-run";
    image.step = step;
    image.attempt = 1;
    image.metrics = {{"loss", 0.5}};
  }
  void add(const char* name, const std::string& prefix, size_t elements, char fill,
           std::vector<std::pair<std::string, std::string>> metadata = {}) {
    metadata.emplace_back("format", "pt");
    constexpr size_t kRoom = 1 << 20;
    auto& memory = memory_.emplace_back(static_cast<char*>(std::aligned_alloc(4096, kRoom)), std::free);
    std::memset(memory.get(), fill, kRoom);
    std::vector<TensorInfo> tensors = {
        {prefix + "w", "F32", {static_cast<int64_t>(elements)}, 0, elements * 4},
        {prefix + "b", "U8", {3}, elements * 4, elements * 4 + 3}};
    FileImage file;
    file.name = name;
    file.header = *build_header(tensors, metadata, 4096);
    file.table = *parse_header(file.header, 4096 + elements * 4 + 3);
    file.data = memory.get();
    image.files.push_back(std::move(file));
  }
  std::vector<std::unique_ptr<char, void (*)(void*)>> memory_;
};

}  // namespace bitctl
