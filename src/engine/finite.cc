// In every float format the values that are not finite share one pattern of bits (an exponent of all ones; in
// the formats without infinities the one or two codes of NaN). So the scan compares words under a mask: no
// arithmetic, no conversion, one loop for all dtypes, which the compiler turns into vector instructions.
#include "engine/finite.h"

#include <algorithm>
#include <cstring>

namespace bitctl::engine {
namespace {

constexpr size_t kBlock = 32 << 10;  // bytes looked at before the scan may end early

template <typename Word>
bool block_matches(const char* block, size_t words, Word mask, Word pattern) {
  Word found = 0;
  for (size_t i = 0; i < words; ++i) {
    Word word;  // the memory may be aligned for nothing
    std::memcpy(&word, block + i * sizeof word, sizeof word);
    found |= static_cast<Word>((word & mask) == pattern);
  }
  return found != 0;
}

template <typename Word>
bool none_matches(const at::Tensor& tensor, Word mask, Word pattern) {
  const char* data = static_cast<const char*>(tensor.const_data_ptr());
  for (size_t left = tensor.nbytes(); left > 0;) {
    const size_t size = std::min(kBlock, left);
    if (block_matches<Word>(data, size / sizeof(Word), mask, pattern)) return false;
    data += size;
    left -= size;
  }
  return true;
}

}  // namespace

bool all_finite(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return none_matches<uint64_t>(tensor, 0x7ff0000000000000, 0x7ff0000000000000);
    case at::kFloat:
    case at::kComplexFloat:
      return none_matches<uint32_t>(tensor, 0x7f800000, 0x7f800000);
    case at::kBFloat16:
      return none_matches<uint16_t>(tensor, 0x7f80, 0x7f80);
    case at::kHalf:
      return none_matches<uint16_t>(tensor, 0x7c00, 0x7c00);
    case at::kFloat8_e5m2:
      return none_matches<uint8_t>(tensor, 0x7c, 0x7c);
    case at::kFloat8_e4m3fn:
      return none_matches<uint8_t>(tensor, 0x7f, 0x7f);
    case at::kFloat8_e5m2fnuz:
    case at::kFloat8_e4m3fnuz:
      return none_matches<uint8_t>(tensor, 0xff, 0x80);
    case at::kFloat8_e8m0fnu:
      return none_matches<uint8_t>(tensor, 0xff, 0xff);
    default:
      return true;  // integers, BOOL and F4 have no such value
  }
}

}  // namespace bitctl::engine
