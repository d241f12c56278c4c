// What a transformer computes between its matrix products, on float32 activations. Nothing allocates.
#pragma once

#include <cstddef>
#include <span>

#include "decode/native_weights.h"
#include "model/model_config.h"

namespace bitctl {

// `to` may be `x`. GPT-2's norms, those with a bias, take the mean off first.
void normalize(std::span<const float> x, const NativeNorm& norm, float eps, float* to);

// gate = activation(gate) · up; without `up`, the activation alone.
void activate(Activation activation, std::span<float> gate, const float* up);

// RoPE of one head: dimension i turns with dimension i + cosines.size().
void rotate(float* head, std::span<const float> cosines, std::span<const float> sines);

}  // namespace bitctl
