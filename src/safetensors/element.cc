#include "safetensors/element.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace bitctl {
namespace {

template <typename T>
T load(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// The value of an 8-bit float whose exponent is no special one.
double small_float(uint8_t byte, int mantissa_bits, int bias) {
  const int mantissa = byte & ((1 << mantissa_bits) - 1);
  const int exponent = (byte & 0x7f) >> mantissa_bits;
  const double size = exponent == 0
                          ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                          : std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
  return byte & 0x80 ? -size : size;
}

double value_of_e4m3(uint8_t byte) {  // the "fn" form: no infinities
  return (byte & 0x7f) == 0x7f ? std::numeric_limits<double>::quiet_NaN() : small_float(byte, 3, 7);
}

double value_of_e5m2(uint8_t byte) {
  if ((byte & 0x7f) > 0x7c) return std::numeric_limits<double>::quiet_NaN();
  if ((byte & 0x7f) == 0x7c)
    return byte & 0x80 ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
  return small_float(byte, 2, 15);
}

template <typename Stored, typename Out, typename Convert>
void convert_all(const char* from, size_t count, Out* to, Convert convert) {
  for (size_t i = 0; i < count; ++i)
    to[i] = static_cast<Out>(convert(load<Stored>(from + i * sizeof(Stored))));
}

template <typename Stored, typename Out>
void convert_all(const char* from, size_t count, Out* to) {
  convert_all<Stored>(from, count, to, [](Stored value) { return value; });
}

template <typename Out>
bool read_castable(std::string_view dtype, const char* from, size_t count, Out* to) {
  if (dtype == "F32")
    convert_all<float>(from, count, to);
  else if (dtype == "BF16")
    convert_all<uint16_t>(from, count, to, float_of_bf16);
  else if (dtype == "F16")
    convert_all<uint16_t>(from, count, to, float_of_f16);
  else if (dtype == "F64")
    convert_all<double>(from, count, to);
  else
    return false;
  return true;
}

}  // namespace

float float_of_bf16(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

float float_of_f16(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  const uint32_t size = bits & 0x7fffu;
  if (size >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000u | (size & 0x3ffu) << 13);
  if (size >= 0x400) return std::bit_cast<float>(sign | ((size << 13) + ((127u - 15u) << 23)));
  // Subnormal: the mantissa counts in 2^-24, which a float holds exactly.
  const float value = static_cast<float>(size) * 0x1p-24f;
  return sign != 0 ? -value : value;
}

uint16_t bf16_of_float(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

uint16_t f16_of_float(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | (size >> 13 & 0x3ffu));
  if (size >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 2^16 and more
  if (size < 0x38800000u) {                                               // below 2^-14: counts of 2^-24
    // The addition rounds as the processor does, to nearest and even, at exactly that place.
    const float rounded = std::bit_cast<float>(size) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(rounded) - std::bit_cast<uint32_t>(0.5f)));
  }
  const uint32_t rebased = size - ((127u - 15u) << 23);
  return static_cast<uint16_t>(sign | (rebased + 0xfffu + (rebased >> 13 & 1u)) >> 13);
}

bool is_castable(std::string_view dtype) {
  return dtype == "F64" || dtype == "F32" || dtype == "F16" || dtype == "BF16";
}

void read_floats(std::string_view dtype, const char* from, size_t count, float* to) {
  read_castable(dtype, from, count, to);
}

void write_floats(std::string_view dtype, const float* from, size_t count, char* to) {
  if (dtype == "F32") {
    std::memcpy(to, from, count * sizeof(float));
    return;
  }
  const bool bf16 = dtype == "BF16";
  for (size_t i = 0; i < count; ++i) {
    const uint16_t bits = bf16 ? bf16_of_float(from[i]) : f16_of_float(from[i]);
    std::memcpy(to + 2 * i, &bits, sizeof bits);
  }
}

bool read_doubles(std::string_view dtype, const char* from, size_t count, double* to) {
  if (read_castable(dtype, from, count, to)) return true;
  if (dtype == "I8")
    convert_all<int8_t>(from, count, to);
  else if (dtype == "U8" || dtype == "BOOL")
    convert_all<uint8_t>(from, count, to);
  else if (dtype == "I16")
    convert_all<int16_t>(from, count, to);
  else if (dtype == "U16")
    convert_all<uint16_t>(from, count, to);
  else if (dtype == "I32")
    convert_all<int32_t>(from, count, to);
  else if (dtype == "U32")
    convert_all<uint32_t>(from, count, to);
  else if (dtype == "I64")
    convert_all<int64_t>(from, count, to);
  else if (dtype == "U64")
    convert_all<uint64_t>(from, count, to);
  else if (dtype == "F8_E4M3")
    convert_all<uint8_t>(from, count, to, value_of_e4m3);
  else if (dtype == "F8_E5M2")
    convert_all<uint8_t>(from, count, to, value_of_e5m2);
  else
    return false;
  return true;
}

}  // namespace bitctl
