#include "safetensors/element.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

namespace bitctl {
namespace {

// The definition, by arithmetic alone: sign · 1.mantissa · 2^exponent with `bits` of mantissa, to nearest and
// even.
double nearest(double value, int bits, int least_exponent, double largest) {
  if (value == 0 || !std::isfinite(value)) return value;
  const int exponent = std::max(std::ilogb(value), least_exponent);
  const double unit = std::ldexp(1.0, exponent - bits);
  const double rounded = std::nearbyint(value / unit) * unit;
  return std::abs(rounded) > largest ? std::copysign(INFINITY, value) : rounded;
}

double nearest_bf16(float value) { return nearest(value, 7, -126, std::ldexp(255.0, 120)); }
double nearest_f16(float value) { return nearest(value, 10, -14, 65504); }

void expect_nearest(float value) {
  if (std::isnan(value)) {
    EXPECT_TRUE(std::isnan(float_of_bf16(bf16_of_float(value))));
    EXPECT_TRUE(std::isnan(float_of_f16(f16_of_float(value))));
    return;
  }
  const float bf16 = float_of_bf16(bf16_of_float(value));
  const float f16 = float_of_f16(f16_of_float(value));
  EXPECT_EQ(bf16, nearest_bf16(value)) << std::hexfloat << value;
  EXPECT_EQ(f16, nearest_f16(value)) << std::hexfloat << value;
  EXPECT_EQ(std::signbit(bf16), std::signbit(value));
  EXPECT_EQ(std::signbit(f16), std::signbit(value));
}

TEST(Element, EveryBitPatternComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float bf16 = float_of_bf16(half);
    const float f16 = float_of_f16(half);
    EXPECT_TRUE(std::isnan(bf16) || bf16_of_float(bf16) == half) << bits;
    EXPECT_TRUE(std::isnan(f16) || f16_of_float(f16) == half) << bits;
    EXPECT_EQ(std::isnan(f16), (half & 0x7fff) > 0x7c00);
  }
}

TEST(Element, TheNearestIsTakenAndATieGoesToEven) {
  // Every place where it changes: between two neighbours, and one bit to either side of the middle.
  for (uint32_t bits = 0; bits < 0x10000; ++bits)
    for (const float at :
         {float_of_bf16(static_cast<uint16_t>(bits)), float_of_f16(static_cast<uint16_t>(bits))}) {
      const auto raw = std::bit_cast<uint32_t>(at);
      for (const uint32_t step : {0x0u, 0x1u, 0xfffu, 0x1000u, 0x1001u, 0x7fffu, 0x8000u, 0x8001u})
        expect_nearest(std::bit_cast<float>(raw + step));
      if (testing::Test::HasFailure()) return;
    }
  std::mt19937 random(1);
  for (int i = 0; i < 200000; ++i) expect_nearest(std::bit_cast<float>(static_cast<uint32_t>(random())));
}

TEST(Element, ReadsEveryNumberFormat) {
  const auto one = [](const char* dtype, std::vector<uint8_t> bytes) {
    double value = -1;
    EXPECT_TRUE(read_doubles(dtype, reinterpret_cast<const char*>(bytes.data()), 1, &value)) << dtype;
    return value;
  };
  EXPECT_EQ(one("I8", {0xff}), -1);
  EXPECT_EQ(one("U8", {0xff}), 255);
  EXPECT_EQ(one("BOOL", {1}), 1);
  EXPECT_EQ(one("I16", {0xfe, 0xff}), -2);
  EXPECT_EQ(one("U16", {0xfe, 0xff}), 65534);
  EXPECT_EQ(one("I32", {0, 0, 0, 0x80}), -2147483648.0);
  EXPECT_EQ(one("U32", {0, 0, 0, 0x80}), 2147483648.0);
  EXPECT_EQ(one("I64", {0, 0, 0, 0, 0, 0, 0, 0x80}), -0x1p63);
  EXPECT_EQ(one("U64", {0, 0, 0, 0, 0, 0, 0, 0x80}), 0x1p63);
  EXPECT_EQ(one("F64", {0, 0, 0, 0, 0, 0, 0xf0, 0x3f}), 1);
  EXPECT_EQ(one("F32", {0, 0, 0x80, 0x3f}), 1);
  EXPECT_EQ(one("F16", {0, 0x3c}), 1);
  EXPECT_EQ(one("BF16", {0x80, 0x3f}), 1);
  EXPECT_EQ(one("F8_E4M3", {0x7e}), 448);
  EXPECT_EQ(one("F8_E4M3", {0x01}), 0x1p-9);
  EXPECT_TRUE(std::isnan(one("F8_E4M3", {0xff})));
  EXPECT_EQ(one("F8_E5M2", {0x7b}), 57344);
  EXPECT_EQ(one("F8_E5M2", {0xfc}), -INFINITY);
  EXPECT_EQ(one("F8_E5M2", {0x81}), -0x1p-16);
  double untouched = 7;
  EXPECT_FALSE(read_doubles("C64", nullptr, 1, &untouched));
  EXPECT_FALSE(read_doubles("F4", nullptr, 1, &untouched));
  EXPECT_EQ(untouched, 7);
}

}  // namespace
}  // namespace bitctl
