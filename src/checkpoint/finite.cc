// In every float format the values that are not finite share one pattern of bits (an exponent of all ones; in
// the formats without infinities the one or two codes of NaN). So the scan compares words under a mask: no
// arithmetic, no conversion, one loop for all dtypes, which the compiler turns into vector instructions.
#include "checkpoint/finite.h"

#include <algorithm>
#include <cstring>

namespace bitctl {
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
bool none_matches(std::string_view bytes, uint64_t mask, uint64_t pattern) {
  for (size_t at = 0; at < bytes.size(); at += kBlock) {
    const size_t size = std::min(kBlock, bytes.size() - at);
    if (block_matches<Word>(bytes.data() + at, size / sizeof(Word), static_cast<Word>(mask),
                            static_cast<Word>(pattern)))
      return false;
  }
  return true;
}

struct FloatFormat {
  std::string_view dtype;
  size_t word;  // bytes; a complex number is two words
  uint64_t mask;
  uint64_t pattern;
};

// Integers, BOOL and the formats of six and four bits have no such value.
constexpr FloatFormat kFormats[] = {
    {"F64", 8, 0x7ff0000000000000, 0x7ff0000000000000},
    {"F32", 4, 0x7f800000, 0x7f800000},
    {"C64", 4, 0x7f800000, 0x7f800000},
    {"BF16", 2, 0x7f80, 0x7f80},
    {"F16", 2, 0x7c00, 0x7c00},
    {"F8_E5M2", 1, 0x7c, 0x7c},
    {"F8_E4M3", 1, 0x7f, 0x7f},
    {"F8_E5M2FNUZ", 1, 0xff, 0x80},
    {"F8_E4M3FNUZ", 1, 0xff, 0x80},
    {"F8_E8M0", 1, 0xff, 0xff},
};

}  // namespace

bool all_finite(std::string_view dtype, std::string_view bytes) {
  for (const FloatFormat& format : kFormats) {
    if (format.dtype != dtype) continue;
    switch (format.word) {
      case 8:
        return none_matches<uint64_t>(bytes, format.mask, format.pattern);
      case 4:
        return none_matches<uint32_t>(bytes, format.mask, format.pattern);
      case 2:
        return none_matches<uint16_t>(bytes, format.mask, format.pattern);
      default:
        return none_matches<uint8_t>(bytes, format.mask, format.pattern);
    }
  }
  return true;
}

}  // namespace bitctl
