#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/level.h"

namespace bitctl {

size_t attention_parts(const AttentionRows& rows) {
  return std::max<size_t>(1, (rows.end - rows.begin + kAttentionPart - 1) / kAttentionPart);
}

void attend_part(const AttentionRows& rows, size_t part, const float* queries, size_t heads, float scale,
                 float softcap, AttentionState* states, float* values, Isa isa) {
  AttentionRows some = rows;
  some.begin = rows.begin + part * kAttentionPart;
  some.end = std::min(rows.end, some.begin + kAttentionPart);
  level_of(isa).attend(some, queries, heads, scale, softcap, states, values);
}

void join_parts(size_t parts, size_t heads, size_t head_dim, AttentionState* states, float* values,
                float* to) {
  for (size_t head = 0; head < heads; ++head) {
    AttentionState& all = states[head];
    float* sums = values + head * head_dim;
    for (size_t part = 1; part < parts; ++part) {
      const AttentionState& further = states[part * heads + head];
      const float* more = values + (part * heads + head) * head_dim;
      const float largest = std::max(all.largest, further.largest);
      const float shrink = std::exp(all.largest - largest), by = std::exp(further.largest - largest);
      for (size_t d = 0; d < head_dim; ++d) sums[d] = sums[d] * shrink + more[d] * by;
      all = {largest, all.total * shrink + further.total * by};
    }
    for (size_t d = 0; d < head_dim; ++d) to[head * head_dim + d] = sums[d] / all.total;
  }
}

void attend(const AttentionRows& rows, const float* queries, size_t heads, float scale, float softcap,
            float* to, Isa isa) {
  thread_local std::vector<AttentionState> states;
  thread_local std::vector<float> values;
  const size_t parts = attention_parts(rows);
  states.resize(std::max(states.size(), parts * heads));
  values.resize(std::max(values.size(), parts * heads * rows.head_dim));
  for (size_t part = 0; part < parts; ++part)
    attend_part(rows, part, queries, heads, scale, softcap, &states[part * heads],
                &values[part * heads * rows.head_dim], isa);
  join_parts(parts, heads, rows.head_dim, states.data(), values.data(), to);
}

}  // namespace bitctl
