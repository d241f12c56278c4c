#include "kernels/attention.h"

#include "kernels/level.h"

namespace bitctl {

void attend(const AttentionRows& rows, const float* queries, size_t heads, float scale, float softcap,
            float* to, Isa isa) {
  level_of(isa).attend(rows, queries, heads, scale, softcap, to);
}

}  // namespace bitctl
