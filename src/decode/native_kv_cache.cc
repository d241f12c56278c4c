#include "decode/native_kv_cache.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "safetensors/element.h"
#include "safetensors/quantize.h"

namespace bitctl {

namespace {

size_t bytes_of(KvType type) { return type == KvType::f32 ? 4 : type == KvType::bf16 ? 2 : 1; }

// a · b · …; false where that has more than 64 bits.
bool multiply(std::initializer_list<size_t> factors, size_t& product) {
  product = 1;
  for (const size_t factor : factors)
    if (__builtin_mul_overflow(product, factor, &product)) return false;
  return true;
}

}  // namespace

Result<NativeKvCache> NativeKvCache::reserve(const Shape& shape) {
  NativeKvCache cache(shape);
  size_t rows = 0, bytes = 0;
  constexpr size_t kLine = 64;
  const bool fits = multiply({2, shape.layers, shape.kv_heads, shape.positions}, rows) &&
                    rows < SIZE_MAX / sizeof(float) - kLine &&
                    multiply({rows, shape.head_dim, bytes_of(shape.type)}, bytes);
  if (shape.type == KvType::int8) cache.scale_bytes_ = (rows * sizeof(float) + kLine - 1) / kLine * kLine;
  if (!fits || __builtin_add_overflow(bytes, cache.scale_bytes_, &bytes))
    return fail(ErrorKind::invalid, "the KV cache has more than 2^64 bytes; --max-context lowers it");
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
    : shape_(other.shape_),
      memory_(std::exchange(other.memory_, nullptr)),
      bytes_(other.bytes_),
      scale_bytes_(other.scale_bytes_) {}

NativeKvCache::~NativeKvCache() {
  if (memory_ != nullptr) ::munmap(memory_, bytes_);
}

AttentionRows NativeKvCache::rows(size_t layer, size_t head) const {
  const size_t keys = index_of(layer, 0, head, 0), values = index_of(layer, 1, head, 0);
  AttentionRows rows{row(keys), row(values), shape_.type, 0, shape_.positions, shape_.head_dim};
  if (shape_.type == KvType::int8) {
    rows.key_scales = scale(keys);
    rows.value_scales = scale(values);
  }
  return rows;
}

void NativeKvCache::put(size_t layer, size_t position, const float* keys, const float* values) {
  for (size_t head = 0; head < shape_.kv_heads; ++head) {
    put_row(index_of(layer, 0, head, position), keys + head * shape_.head_dim);
    put_row(index_of(layer, 1, head, position), values + head * shape_.head_dim);
  }
}

void NativeKvCache::put_row(size_t index, const float* from) {
  if (shape_.type != KvType::int8)
    return write_floats(shape_.type == KvType::bf16 ? "BF16" : "F32", from, shape_.head_dim, row(index));
  const bool finite =
      std::all_of(from, from + shape_.head_dim, [](float value) { return std::isfinite(value); });
  *scale(index) = quantize_row(from, shape_.head_dim, reinterpret_cast<int8_t*>(row(index)));
  if (!finite) *scale(index) = NAN;
}

size_t NativeKvCache::index_of(size_t layer, size_t which, size_t head, size_t position) const {
  return ((layer * 2 + which) * shape_.kv_heads + head) * shape_.positions + position;
}

char* NativeKvCache::row(size_t index) const {
  return static_cast<char*>(memory_) + scale_bytes_ + index * shape_.head_dim * bytes_of(shape_.type);
}

}  // namespace bitctl
