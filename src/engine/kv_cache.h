// Keys and values of every position so far. Address space for all of the context is taken at once and filled
// by the kernel as it is used, so the cache never grows by copying.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace bitctl::engine {

class KvCache {
 public:
  struct Layer {
    at::Tensor keys, values;  // [kv_heads, max_context, head_dim]
  };

  KvCache(int64_t layers, int64_t kv_heads, int64_t max_context, int64_t head_dim, at::ScalarType dtype);

  const Layer& layer(size_t index) const { return layers_[index]; }
  int64_t max_context() const { return max_context_; }

 private:
  int64_t max_context_;
  std::vector<Layer> layers_;
};

}  // namespace bitctl::engine
