// The real module, and tensors to hand to it.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine_api/engine_loader.h"

namespace bitctl {

inline const bitctl_engine& the_engine() {
  static const bitctl_engine* engine = [] {
    const auto loaded = load_engine(BITCTL_BUILD_DIR "/libbitctl_engine.so");
    if (!loaded) {
      ADD_FAILURE() << loaded.error().message;
      std::abort();
    }
    return *loaded;
  }();
  return *engine;
}

// A tensor that owns its bytes; `shift` moves them off their alignment.
struct OwnedTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
  size_t shift = 0;

  bitctl_tensor view() {
    storage = std::string(shift, '\0') + bytes;
    return {name.c_str(), dtype.c_str(), shape.data(), shape.size(), storage.data() + shift, bytes.size()};
  }

  std::string storage = {};
};

}  // namespace bitctl
