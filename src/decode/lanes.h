// Sixteen floats at a time, in the compiler's own vectors: one source for every instruction set, and the same
// order of additions on all of them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace bitctl::lanes {

constexpr size_t kLanes = 16;
using Floats = float __attribute__((vector_size(64)));
using Integers = int32_t __attribute__((vector_size(64)));

[[gnu::always_inline]] inline Floats load(const float* from) {
  Floats floats;
  std::memcpy(&floats, from, sizeof floats);
  return floats;
}

[[gnu::always_inline]] inline void store(Floats floats, float* to) {
  std::memcpy(to, &floats, sizeof floats);
}

[[gnu::always_inline]] inline float sum(Floats floats) {
  float halves[kLanes];
  std::memcpy(halves, &floats, sizeof halves);
  for (size_t step = kLanes / 2; step > 0; step /= 2)
    for (size_t i = 0; i < step; ++i) halves[i] += halves[i + step];
  return halves[0];
}

// Within 2 units of the last place; 0 below -87, largest at 88.
[[gnu::always_inline]] inline Floats exp(Floats x) {
  x = x < -87 ? Floats{} - 87 : x > 88 ? Floats{} + 88 : x;
  // e^x = 2^whole · e^rest with |rest| <= ln 2 / 2; adding 1.5 · 2^23 rounds to a whole number.
  const float shifter = 12'582'912;
  const Floats whole = (x * 1.44269504F + shifter) - shifter;
  const Floats rest = (x - whole * 0.693359375F) - whole * -2.12194440e-4F;
  Floats power = Floats{} + 1.9875691500e-4F;
  for (const float coefficient :
       {1.3981999507e-3F, 8.3334519073e-3F, 4.1665795894e-2F, 1.6666665459e-1F, 0.5F})
    power = power * rest + coefficient;
  power = power * rest * rest + rest + 1;
  return power * std::bit_cast<Floats>((__builtin_convertvector(whole, Integers) + 127) << 23);
}

}  // namespace bitctl::lanes
