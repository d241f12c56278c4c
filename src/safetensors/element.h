// What the elements of a tensor are worth, and the nearest ones of another dtype. Pure; little-endian, any
// alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bitctl {

float float_of_bf16(uint16_t bits);
float float_of_f16(uint16_t bits);
// To nearest, a tie to even; too large becomes infinite; a NaN stays one.
uint16_t bf16_of_float(float value);
uint16_t f16_of_float(float value);

// The dtypes that are cast into each other: "F64", "F32", "F16", "BF16".
bool is_castable(std::string_view dtype);

// `count` elements of a castable dtype; F64 is rounded to the nearest float.
void read_floats(std::string_view dtype, const char* from, size_t count, float* to);
// The nearest elements of "F32", "F16" or "BF16".
void write_floats(std::string_view dtype, const float* from, size_t count, char* to);

// False where an element is no single number (C64, the packed and scale-only formats); nothing is read then.
// 64-bit integers are rounded.
bool read_doubles(std::string_view dtype, const char* from, size_t count, double* to);

}  // namespace bitctl
