#include "checkpoint/finite.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

namespace bitctl {
namespace {

template <typename Word>
std::string repeated(Word word, size_t count) {
  std::string bytes(count * sizeof word, '\0');
  for (size_t i = 0; i < count; ++i) std::memcpy(bytes.data() + i * sizeof word, &word, sizeof word);
  return bytes;
}

// Every position of one bad value among good ones, across blocks and off the alignment.
template <typename Word>
void expect_found(const char* dtype, const std::vector<Word>& bad, const std::vector<Word>& good) {
  constexpr size_t kWords = 50'000;
  for (const Word word : good) {
    const std::string shifted = "x" + repeated(word, kWords);
    EXPECT_TRUE(all_finite(dtype, std::string_view(shifted).substr(1))) << dtype << " " << uint64_t{word};
  }
  for (const Word word : bad)
    for (const size_t at : {size_t{0}, size_t{1}, size_t{8191}, size_t{8192}, kWords / 2 + 1, kWords - 1}) {
      const size_t shift = at % 2;
      std::string bytes = std::string(shift, 'x') + repeated(good[0], kWords);
      std::memcpy(bytes.data() + shift + at * sizeof word, &word, sizeof word);
      EXPECT_FALSE(all_finite(dtype, std::string_view(bytes).substr(shift)))
          << dtype << " " << uint64_t{word} << " at " << at;
    }
}

TEST(AllFinite, FindsNanAndInfinityInEveryFloat) {
  // good: one, zero, minus zero, the smallest subnormal, the largest finite of both signs.
  expect_found<uint64_t>(
      "F64", {0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000, 0x7ff0000000000001},
      {0x3ff0000000000000, 0, 0x8000000000000000, 1, 0x7fefffffffffffff, 0xffefffffffffffff});
  const std::vector<uint32_t> bad32 = {0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xffffffff};
  const std::vector<uint32_t> good32 = {0x3f800000, 0, 0x80000000, 1, 0x7f7fffff, 0xff7fffff};
  expect_found<uint32_t>("F32", bad32, good32);
  expect_found<uint32_t>("C64", bad32, good32);
  expect_found<uint16_t>("BF16", {0x7f80, 0xff80, 0x7fc0, 0x7f81}, {0x3f80, 0, 0x8000, 1, 0x7f7f, 0xff7f});
  expect_found<uint16_t>("F16", {0x7c00, 0xfc00, 0x7e00, 0x7c01}, {0x3c00, 0, 0x8000, 1, 0x7bff, 0xfbff});
  expect_found<uint8_t>("F8_E5M2", {0x7c, 0xfc, 0x7d, 0x7f}, {0x3c, 0, 0x80, 1, 0x7b, 0xfb});
  expect_found<uint8_t>("F8_E4M3", {0x7f, 0xff}, {0x38, 0, 0x80, 1, 0x7e, 0xfe});
  expect_found<uint8_t>("F8_E5M2FNUZ", {0x80}, {0x40, 0, 1, 0x7f, 0xff});
  expect_found<uint8_t>("F8_E4M3FNUZ", {0x80}, {0x40, 0, 1, 0x7f, 0xff});
  expect_found<uint8_t>("F8_E8M0", {0xff}, {0x7f, 0, 0xfe});
}

TEST(AllFinite, WhatHasNoSuchValueIsFinite) {
  const std::string ones(32, '\xff');
  for (const char* dtype :
       {"U8", "I8", "BOOL", "I16", "U16", "I32", "U32", "I64", "U64", "F4", "F6_E2M3", ""})
    EXPECT_TRUE(all_finite(dtype, ones)) << dtype;
}

}  // namespace
}  // namespace bitctl
