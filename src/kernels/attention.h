// What queries see of the keys and values of one head.
#pragma once

#include "kernels/attention_rows.h"
#include "kernels/isa.h"

namespace bitctl {

// For each of `heads` queries that share these rows: the values, weighed by the softmax of query · key ·
// scale. `softcap` c makes a score c · tanh(score / c) first; 0: it stays. `queries` and `to` are [heads,
// head_dim]. In the calling thread, from float32 sums; a head depends on nothing beside it. Of no rows: NaN.
// Allocates nothing once it has seen its longest rows.
void attend(const AttentionRows& rows, const float* queries, size_t heads, float scale, float softcap,
            float* to, Isa isa = default_isa());

// The same bits by several threads: attend_part() for each of attention_parts(), of kAttentionPart positions
// but the last, then join_parts(). Together they hold states [parts, heads] and values [parts, heads,
// head_dim], of which the first part's are written over.
inline constexpr size_t kAttentionPart = 256;
size_t attention_parts(const AttentionRows& rows);  // at least 1
void attend_part(const AttentionRows& rows, size_t part, const float* queries, size_t heads, float scale,
                 float softcap, AttentionState* states, float* values, Isa isa = default_isa());
void join_parts(size_t parts, size_t heads, size_t head_dim, AttentionState* states, float* values,
                float* to);

}  // namespace bitctl
