// Keys and values where they lie.
#pragma once

#include <stddef.h>

namespace bitctl {

// The keys and values of one head, from position `begin` to before `end`; rows of `head_dim`, bf16 or float.
struct AttentionRows {
  const void* keys = nullptr;  // of position 0
  const void* values = nullptr;
  bool is_bf16 = false;
  size_t begin = 0;
  size_t end = 0;
  size_t head_dim = 0;
};

}  // namespace bitctl
