// Keys and values of every position so far. Address space for all of the context is taken at once and filled
// by the kernel as it is used, so the cache never grows by copying; forgetting is nobody's work.
#pragma once

#include <cstddef>

#include "base/result.h"
#include "kernels/attention_rows.h"

namespace bitctl {

class NativeKvCache {
 public:
  struct Shape {
    size_t layers = 0;
    size_t kv_heads = 0;
    size_t positions = 0;
    size_t head_dim = 0;
    KvType type = KvType::f32;
  };

  // Error::invalid where the machine has no such address space.
  static Result<NativeKvCache> reserve(const Shape& shape);
  NativeKvCache(NativeKvCache&& other) noexcept;
  NativeKvCache& operator=(NativeKvCache&&) = delete;
  ~NativeKvCache();

  const Shape& shape() const { return shape_; }
  // All positions of one head.
  AttentionRows rows(size_t layer, size_t head) const;
  // One position of all heads: both [kv_heads, head_dim]. What is not finite stays so.
  void put(size_t layer, size_t position, const float* keys, const float* values);

 private:
  explicit NativeKvCache(const Shape& shape) : shape_(shape) {}
  size_t index_of(size_t layer, size_t which, size_t head, size_t position) const;
  char* row(size_t index) const;
  float* scale(size_t index) const { return static_cast<float*>(memory_) + index; }
  void put_row(size_t index, const float* row);

  Shape shape_;
  void* memory_ = nullptr;
  size_t bytes_ = 0;
  size_t scale_bytes_ = 0;  // of int8, before the rows
};

}  // namespace bitctl
