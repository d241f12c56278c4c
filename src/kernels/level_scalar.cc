#include "kernels/attend.h"

namespace bitctl {
namespace {

struct Scalar {
  using Floats = float;
  static constexpr size_t kLanes = 1;
  static constexpr size_t kTileRows = 1;
  static constexpr size_t kTileTokens = 1;
  static constexpr size_t kTilePacked = 1;

  static float zero() { return 0; }
  static float load(F32, const void* from) {
    float value;
    memcpy(&value, from, sizeof value);
    return value;
  }
  static float load(Bf16, const void* from) {
    uint16_t bits;
    memcpy(&bits, from, sizeof bits);
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    return load(F32(), &wide);
  }
  static float load(F16, const void* from) {
    _Float16 value;
    memcpy(&value, from, sizeof value);
    return static_cast<float>(value);
  }
  static float load(Int8, const void* from) { return *static_cast<const int8_t*>(from); }
  static void store(float* to, float value) { *to = value; }
  static float all(float value) { return value; }
  static float exp(float x) { return expf(x); }
  static float multiply_add(float a, float b, float sum) { return a * b + sum; }
  static float sum(float (&lanes)[kSumLanes]) {
    for (size_t half = kSumLanes / 2; half > 0; half /= 2)
      for (size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    return lanes[0];
  }

  template <int T>
  static void packed_dots(const unsigned char* w, size_t columns, const int8_t* x, size_t stride,
                          int32_t (&to)[T][4]) {
    for (int t = 0; t < T; ++t)
      for (int k = 0; k < 4; ++k) {
        to[t][k] = 0;
        for (size_t c = 0; c < columns; ++c) to[t][k] += (w[c] >> 2 * k & 3) * x[t * stride + c];
      }
  }
};

}  // namespace

const Level kScalarLevel = {multiply<Scalar>, quantize<Scalar>, read<Scalar>, attend<Scalar>};

}  // namespace bitctl
