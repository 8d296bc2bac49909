#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/array.h"
#include "kernels/entries.h"
#include "kernels/exec.h"

namespace memlane {

/// Exact search: for every query token and head the k entries with the largest q . k; of equal ones those with smaller
/// ids. queries: [tokens, heads, head_dim]; blocks: [kv_heads, blocks]; k >= 1. ids: [tokens, heads, k], entries
/// numbered through the blocks in order, ascending, then -1 where there are fewer than k entries; scores: [tokens,
/// heads, k], the q . k of each.
void top_k_scan(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> blocks,
                View<std::int64_t, 3> ids, View<float, 3> scores);

/// Exact scores of proposed entries. ids: [tokens, heads, k], -1 for none (score -inf); scores: [tokens, heads, k].
void score_entries(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> blocks,
                   View<const std::int64_t, 3> ids, View<float, 3> scores);

/// Keeps the k best of n proposed entries of each query, in the order of top_k_scan. Ids below 0 are none; no id is
/// proposed twice. proposed_ids, proposed_scores: [tokens, heads, n]; ids, scores: [tokens, heads, k].
void select_best(CpuExec& exec, View<const std::int64_t, 3> proposed_ids, View<const float, 3> proposed_scores,
                 View<std::int64_t, 3> ids, View<float, 3> scores);

}  // namespace memlane
