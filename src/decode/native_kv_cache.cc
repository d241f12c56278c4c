#include "decode/native_kv_cache.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <utility>

#include "safetensors/element.h"

namespace bitctl {

Result<NativeKvCache> NativeKvCache::reserve(const Shape& shape) {
  size_t bytes = shape.is_bf16 ? 4 : 8;  // keys and values
  for (const size_t size : {shape.layers, shape.kv_heads, shape.positions, shape.head_dim})
    if (__builtin_mul_overflow(bytes, size, &bytes))
      return fail(ErrorKind::invalid, "the KV cache has more than 2^64 bytes; --max-context lowers it");
  NativeKvCache cache(shape);
  void* memory =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    return fail(ErrorKind::invalid,
                fmt::format("no address space for a KV cache of {} bytes; --max-context lowers it", bytes));
  cache.memory_ = memory;
  cache.bytes_ = bytes;
  return cache;
}

NativeKvCache::NativeKvCache(NativeKvCache&& other) noexcept
    : shape_(other.shape_), memory_(std::exchange(other.memory_, nullptr)), bytes_(other.bytes_) {}

NativeKvCache::~NativeKvCache() {
  if (memory_ != nullptr) ::munmap(memory_, bytes_);
}

void NativeKvCache::put(size_t layer, size_t position, const float* keys, const float* values) {
  const char* dtype = shape_.is_bf16 ? "BF16" : "F32";
  for (size_t head = 0; head < shape_.kv_heads; ++head) {
    write_floats(dtype, keys + head * shape_.head_dim, shape_.head_dim, row(layer, 0, head, position));
    write_floats(dtype, values + head * shape_.head_dim, shape_.head_dim, row(layer, 1, head, position));
  }
}

char* NativeKvCache::row(size_t layer, size_t which, size_t head, size_t position) const {
  const size_t index = ((layer * 2 + which) * shape_.kv_heads + head) * shape_.positions + position;
  return static_cast<char*>(memory_) + index * shape_.head_dim * (shape_.is_bf16 ? 2 : 4);
}

}  // namespace bitctl
