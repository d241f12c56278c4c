#include "safetensors/quantize.h"

#include <algorithm>
#include <cmath>

namespace bitctl {
namespace {

constexpr float kLargest = 127;

}  // namespace

float quantize_row(const float* row, size_t columns, int8_t* to) {
  float largest = 0;
  for (size_t i = 0; i < columns; ++i)
    if (std::isfinite(row[i])) largest = std::max(largest, std::abs(row[i]));
  const float scale = largest > 0 ? largest / kLargest : 1;
  for (size_t i = 0; i < columns; ++i) {
    const float value = std::isnan(row[i]) ? 0 : std::nearbyint(row[i] / scale);
    to[i] = static_cast<int8_t>(std::clamp(value, -kLargest, kLargest));
  }
  return scale;
}

int ternary_of(float value, float inverse_mean) {
  if (std::isnan(value)) return 0;
  return static_cast<int>(std::clamp(std::nearbyint(value * inverse_mean), -1.0F, 1.0F));
}

void pack_ternary(const float* const rows[4], size_t columns, float inverse_mean, uint8_t* to) {
  for (size_t i = 0; i < columns; ++i) {
    unsigned packed = 0;
    for (unsigned quarter = 0; quarter < 4; ++quarter)
      packed |= static_cast<unsigned>(ternary_of(rows[quarter][i], inverse_mean) + 1) << (2 * quarter);
    to[i] = static_cast<uint8_t>(packed);
  }
}

}  // namespace bitctl
