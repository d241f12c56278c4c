// Keys and values where they lie, and how far a softmax over them has come.
#pragma once

#include <math.h>
#include <stddef.h>

namespace bitctl {

enum class KvType {
  f32,
  bf16,
  int8,  // the row of position j stands for its integers · scales[j]
};

// The keys and values of one head, from position `begin` to before `end`; rows of `head_dim`.
struct AttentionRows {
  const void* keys = nullptr;  // of position 0
  const void* values = nullptr;
  KvType type = KvType::f32;
  size_t begin = 0;
  size_t end = 0;
  size_t head_dim = 0;
  const float* key_scales = nullptr;  // int8: of position 0 on
  const float* value_scales = nullptr;
};

// Of one query: its largest score, and the sum of all e^(score - largest).
struct AttentionState {
  float largest = -INFINITY;
  float total = 0;
};

}  // namespace bitctl
