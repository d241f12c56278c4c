#include "engine/kv_cache.h"

#include <ATen/ops/from_blob.h>
#include <sys/mman.h>

#include "engine/door.h"

namespace bitctl::engine {
namespace {

at::Tensor reserve(at::IntArrayRef shape, at::ScalarType dtype) {
  size_t bytes = at::elementSize(dtype);
  for (const int64_t size : shape)
    if (__builtin_mul_overflow(bytes, static_cast<size_t>(size), &bytes))
      refuse("the KV cache has more than 2^64 bytes");
  void* memory =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    refuse("no address space for a KV cache of ", bytes, " bytes; --max-context lowers it");
  return at::from_blob(
      memory, shape, [bytes](void* at) { ::munmap(at, bytes); }, at::dtype(dtype));
}

}  // namespace

KvCache::KvCache(int64_t layers, int64_t kv_heads, int64_t max_context, int64_t head_dim,
                 at::ScalarType dtype)
    : max_context_(max_context) {
  for (int64_t i = 0; i < layers; ++i)
    layers_.push_back({reserve({kv_heads, max_context, head_dim}, dtype),
                       reserve({kv_heads, max_context, head_dim}, dtype)});
}

}  // namespace bitctl::engine
