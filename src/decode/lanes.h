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
  floats += __builtin_shuffle(floats, Integers{8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7});
  floats += __builtin_shuffle(floats, Integers{4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11});
  floats += __builtin_shuffle(floats, Integers{2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13});
  floats += __builtin_shuffle(floats, Integers{1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14});
  return floats[0];
}

// Within 2 units of the last place from -87 to 88, which stand for all that is beyond them: 1e-38, 2e38.
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
