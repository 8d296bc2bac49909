#pragma once

#include <cstdint>
#include <span>

#include "kernels/array.h"
#include "kernels/entries.h"
#include "kernels/exec.h"

namespace memlane {

/// What single entries weigh in a softmax: exp(scale * q . k - max) / weight for a query token and head, where max and
/// weight are those of the whole softmax (an AttentionPartial in which everything is merged). The weights of all that
/// belongs to the softmax add up to 1.
///
/// Adds to each entry its weights for all query tokens and heads, times `factor`.
/// queries: [tokens, heads, head_dim]; blocks: [kv_heads, blocks]; max, weight: [tokens, heads]; sums: [entries],
/// entries numbered through the blocks in order. The result does not depend on the number of threads.
void add_entry_weights(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> blocks, float scale,
                       View<const float, 2> max, View<const float, 2> weight, double factor, std::span<double> sums);

/// The same for chosen entries; others weigh nothing. ids, scores: as attend_selected takes them.
void add_selected_weights(View<const std::int64_t, 3> ids, View<const float, 3> scores, float scale,
                          View<const float, 2> max, View<const float, 2> weight, double factor, std::span<double> sums);

}  // namespace memlane
