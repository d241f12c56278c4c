// What queries see of the keys and values of one head.
#pragma once

#include "kernels/attention_rows.h"
#include "kernels/isa.h"

namespace bitctl {

// For each of `heads` queries that share these rows: the values, weighed by the softmax of query · key ·
// scale. `softcap` c makes a score c · tanh(score / c) first; 0: it stays. `queries` and `to` are [heads,
// head_dim]. In the calling thread, from float32 sums; a head depends on nothing beside it. Of no rows: NaN.
void attend(const AttentionRows& rows, const float* queries, size_t heads, float scale, float softcap,
            float* to, Isa isa = default_isa());

}  // namespace bitctl
