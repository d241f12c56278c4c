#include <immintrin.h>

#include "kernels/attend.h"

namespace bitctl {
namespace {

struct Avx2 {
  using Floats = __m256;
  using Integers = int32_t __attribute__((vector_size(32)));
  static constexpr size_t kLanes = 8;
  // Of 16 registers 12 hold sums.
  static constexpr size_t kTileRows = 1;
  static constexpr size_t kTileTokens = 3;
  static constexpr size_t kTilePacked = 1;

  static __m256 zero() { return _mm256_setzero_ps(); }
  static __m256 load(F32, const void* from) { return _mm256_loadu_ps(static_cast<const float*>(from)); }
  static __m256 load(Bf16, const void* from) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  static __m256 load(F16, const void* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(from)));
  }
  static __m256 load(Int8, const void* from) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadu_si64(from)));
  }
  static void store(float* to, __m256 values) { _mm256_storeu_ps(to, values); }
  static __m256 all(float value) { return _mm256_set1_ps(value); }
  static __m256 exp(__m256 x) { return exp_of<Avx2>(x); }
  static __m256 multiply_add(__m256 a, __m256 b, __m256 sum) { return _mm256_fmadd_ps(a, b, sum); }
  static float sum(const __m256 (&lanes)[4]) {
    const __m256 eight = _mm256_add_ps(_mm256_add_ps(lanes[0], lanes[2]), _mm256_add_ps(lanes[1], lanes[3]));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }

  // Two products of a byte and an integer are at most 768, so 16 bits hold the sums of 32 blocks.
  template <int T>
  static void packed_dots(const unsigned char* w, size_t columns, const int8_t* x, size_t stride,
                          int32_t (&to)[T][4]) {
    constexpr size_t kBlock = 32, kBlocks = 32;
    // The one loop that is too long for the processor to look ahead far enough itself; others only lost by
    // it.
    constexpr size_t kPrefetchBytes = 512;
    const __m256i low = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
    alignas(32) unsigned char last[kBlock] = {};
    __m256i wide[T][4];
#pragma GCC unroll 16
    for (auto& token : wide)
#pragma GCC unroll 16
      for (__m256i& sum : token) sum = _mm256_setzero_si256();
    for (size_t c = 0; c < columns;) {
      __m256i narrow[T][4];
#pragma GCC unroll 16
      for (auto& token : narrow)
#pragma GCC unroll 16
        for (__m256i& sum : token) sum = _mm256_setzero_si256();
      for (const size_t end = c + kBlocks * kBlock; c < end && c < columns; c += kBlock) {
        const unsigned char* from = w + c;
        if (c + kBlock > columns) from = static_cast<unsigned char*>(memcpy(last, from, columns - c));
        __builtin_prefetch(w + c + kPrefetchBytes);
        const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
        const __m256i bits[4] = {_mm256_and_si256(packed, low),
                                 _mm256_and_si256(_mm256_srli_epi16(packed, 2), low),
                                 _mm256_and_si256(_mm256_srli_epi16(packed, 4), low),
                                 _mm256_and_si256(_mm256_srli_epi16(packed, 6), low)};
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
          const __m256i values = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + t * stride + c));
#pragma GCC unroll 16
          for (int k = 0; k < 4; ++k)
            narrow[t][k] = _mm256_add_epi16(narrow[t][k], _mm256_maddubs_epi16(bits[k], values));
        }
      }
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t)
#pragma GCC unroll 16
        for (int k = 0; k < 4; ++k)
          wide[t][k] = _mm256_add_epi32(wide[t][k], _mm256_madd_epi16(narrow[t][k], ones));
    }
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 16
      for (int k = 0; k < 4; ++k) {
        const __m256i eight = wide[t][k];
        const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
        const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0b1110));
        to[t][k] = _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
      }
  }
};

}  // namespace

const Level kAvx2Level = {multiply<Avx2>, quantize<Avx2>, read<Avx2>, attend<Avx2>};

}  // namespace bitctl
