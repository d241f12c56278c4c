#include <immintrin.h>

#include "kernels/attend.h"

namespace bitctl {
namespace {

struct Avx512 {
  using Floats = __m512;
  using Integers = int32_t __attribute__((vector_size(64)));
  static constexpr size_t kLanes = 16;
  // Of 32 registers 24 hold sums.
  static constexpr size_t kTileRows = 4;
  static constexpr size_t kTileTokens = 3;
  static constexpr size_t kTilePacked = 4;

  static __m512 zero() { return _mm512_setzero_ps(); }
  static __m512 load(F32, const void* from) { return _mm512_loadu_ps(from); }
  static __m512 load(Bf16, const void* from) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  static __m512 load(F16, const void* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
  }
  static __m512 load(Int8, const void* from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from))));
  }
  static void store(float* to, __m512 values) { _mm512_storeu_ps(to, values); }
  static __m512 all(float value) { return _mm512_set1_ps(value); }
  static __m512 exp(__m512 x) { return exp_of<Avx512>(x); }
  static __m512 multiply_add(__m512 a, __m512 b, __m512 sum) { return _mm512_fmadd_ps(a, b, sum); }
  static float sum(const __m512 (&lanes)[2]) {
    const __m512 sixteen = _mm512_add_ps(lanes[0], lanes[1]);
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(sixteen), _mm512_extractf32x8_ps(sixteen, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }

  // The bits stay where they are in their byte, so sum k comes out 4^k times too large, and exact.
  template <int T>
  static void packed_dots(const unsigned char* w, size_t columns, const int8_t* x, size_t stride,
                          int32_t (&to)[T][4]) {
    constexpr size_t kBlock = 64;
    constexpr size_t kMostColumns = size_t{1} << 16;  // 2^16 · 192 · 128 < 2^31
    const __m512i masks[4] = {_mm512_set1_epi8(3), _mm512_set1_epi8(3 << 2), _mm512_set1_epi8(3 << 4),
                              _mm512_set1_epi8(static_cast<char>(3 << 6))};
#pragma GCC unroll 16
    for (auto& token : to)
      for (int32_t& sum : token) sum = 0;
    for (size_t c = 0; c < columns;) {
      __m512i sums[T][4];
#pragma GCC unroll 16
      for (auto& token : sums)
#pragma GCC unroll 16
        for (__m512i& sum : token) sum = _mm512_setzero_si512();
      const auto add = [&](__m512i packed) __attribute__((always_inline)) {
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
          const __m512i values = _mm512_loadu_si512(x + t * stride + c);
#pragma GCC unroll 16
          for (int k = 0; k < 4; ++k)
            sums[t][k] = _mm512_dpbusd_epi32(sums[t][k], _mm512_and_si512(packed, masks[k]), values);
        }
      };
      const size_t end = columns - c > kMostColumns ? c + kMostColumns : columns;
      for (; c + kBlock <= end; c += kBlock) add(_mm512_loadu_si512(w + c));
      if (c < end) {
        add(_mm512_maskz_loadu_epi8((__mmask64{1} << (end - c)) - 1, w + c));
        c = end;
      }
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t)
#pragma GCC unroll 16
        for (int k = 0; k < 4; ++k) to[t][k] += _mm512_reduce_add_epi32(sums[t][k]) >> 2 * k;
    }
  }
};

}  // namespace

const Level kAvx512Level = {multiply<Avx512>, quantize<Avx512>, read<Avx512>, attend<Avx512>};

}  // namespace bitctl
