// A snapshot's files, laid out as safetensors; and a checkpoint's, read back from their images.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/strict_json.h"
#include "checkpoint/arena.h"
#include "safetensors/header.h"
#include "trainer/trainer.h"

namespace bitctl::trainer {

// One file: where its tensors go, and where they are now.
struct FileLayout {
  std::string name;
  std::vector<TensorInfo> tensors;  // laid out
  std::vector<const void*> from;    // of each of them
  std::vector<std::pair<std::string, std::string>> metadata;
  uint64_t header_bytes = 0;  // the least that its header takes
  uint64_t data_bytes = 0;
};

// model.safetensors and training.safetensors. Error::invalid names a tensor that cannot be saved.
Result<std::vector<FileLayout>> lay_out_state(const State& state, uint64_t step);

// The `files` of an arena request for these; their headers may grow to twice their size.
Json regions_for(const std::vector<FileLayout>& files);
bool holds(const ArenaLayout& arena, const std::vector<FileLayout>& files);

// Copies everything into a slot's memory. The bytes of each file.
Result<std::vector<uint64_t>> write_image(const std::vector<FileLayout>& files, const ArenaLayout& arena,
                                          char* memory);

struct Parts {
  std::vector<Tensor> model, training;
  std::string text;
};
// `used`: bytes of each file. The tensors are views of `memory`. Error::damaged where it is no snapshot.
Result<Parts> read_image(const ArenaLayout& arena, const uint64_t* used, const char* memory);

}  // namespace bitctl::trainer
