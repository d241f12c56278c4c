// A step to be saved, without a trainer.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>

#include "checkpoint/commit.h"

namespace bitctl {

// A step whose tensors lie in page-aligned memory, as in a slot of the arena.
class TestStep {
 public:
  explicit TestStep(uint64_t step, char fill = 'a', size_t elements = 3000)
      : memory_(static_cast<char*>(std::aligned_alloc(4096, 1 << 20)), std::free) {
    std::memset(memory_.get(), fill, 1 << 20);
    image.run = "test-run";
    image.step = step;
    image.attempt = 1;
    image.metrics = {{"loss", 0.5}};
    add(kModelFile, elements);
    add(kTrainingFile, 10);
  }
  StepImage image;

 private:
  void add(const char* name, size_t elements) {
    std::vector<TensorInfo> tensors = {{"w", "F32", {static_cast<int64_t>(elements)}, 0, elements * 4},
                                       {"b", "U8", {3}, elements * 4, elements * 4 + 3}};
    FileImage file;
    file.name = name;
    file.header = *build_header(tensors, {{"format", "pt"}}, 4096);
    file.table = *parse_header(file.header, 4096 + elements * 4 + 3);
    file.data = memory_.get();
    image.files.push_back(std::move(file));
  }
  std::unique_ptr<char, void (*)(void*)> memory_;
};

}  // namespace bitctl
