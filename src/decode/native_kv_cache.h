// Keys and values of every position so far. Address space for all of the context is taken at once and filled
// by the kernel as it is used, so the cache never grows by copying; forgetting is nobody's work.
#pragma once

#include <cstddef>

#include "base/result.h"

namespace bitctl {

class NativeKvCache {
 public:
  struct Shape {
    size_t layers = 0;
    size_t kv_heads = 0;
    size_t positions = 0;
    size_t head_dim = 0;
    bool is_bf16 = false;  // else float
  };

  // Error::invalid where the machine has no such address space.
  static Result<NativeKvCache> reserve(const Shape& shape);
  NativeKvCache(NativeKvCache&& other) noexcept;
  NativeKvCache& operator=(NativeKvCache&&) = delete;
  ~NativeKvCache();

  const Shape& shape() const { return shape_; }
  // The rows of one head, position 0 first: [positions, head_dim].
  const void* keys(size_t layer, size_t head) const { return row(layer, 0, head, 0); }
  const void* values(size_t layer, size_t head) const { return row(layer, 1, head, 0); }
  // One position of all heads: both [kv_heads, head_dim].
  void put(size_t layer, size_t position, const float* keys, const float* values);

 private:
  explicit NativeKvCache(const Shape& shape) : shape_(shape) {}
  char* row(size_t layer, size_t which, size_t head, size_t position) const;

  Shape shape_;
  void* memory_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace bitctl
