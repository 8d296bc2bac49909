#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/array.h"
#include "kernels/entries.h"
#include "kernels/exec.h"

namespace memlane {

/// A partial attention: what one source of keys and values contributes to a softmax, before it is known what the other
/// sources contribute. With scores s_j = scale * q . k_j over the entries j of the source, for each query token and
/// head
///   max = max_j s_j,   weight = sum_j exp(s_j - max),   sum = sum_j exp(s_j - max) v_j.
/// An empty source has max = -inf, weight = 0, sum = 0. Partials of disjoint sources merge exactly (the online softmax
/// of Milakov and Gimelshein 2018): local window, memory, each segment, each document.
struct AttentionPartial {
  View<float, 3> sum;     ///< [tokens, heads, head_dim]
  View<float, 2> max;     ///< [tokens, heads]
  View<float, 2> weight;  ///< [tokens, heads]
};

/// Owns the arrays of a partial.
class PartialBuffer {
 public:
  /// A partial for these extents over storage kept from earlier calls; contents unspecified.
  AttentionPartial get(std::size_t tokens, std::size_t heads, std::size_t head_dim);

 private:
  Buffer<float> storage_;
};

/// Which entries of its (single) block a query sees: a band of distances. Query token i stands at first_position + i
/// and sees entry e if first_entry <= e < end_entry and min_distance <= first_position + i - e <= max_distance. Not
/// banded: all of them.
struct Visibility {
  static constexpr std::size_t kAnyDistance = std::numeric_limits<std::size_t>::max();

  bool banded = false;
  std::size_t first_position = 0;
  std::size_t min_distance = 0;
  std::size_t max_distance = kAnyDistance;
  std::size_t first_entry = 0;           ///< those before it are never seen
  std::size_t end_entry = kAnyDistance;  ///< nor those from it on

  static Visibility all() { return {}; }
  static Visibility causal_from(std::size_t first_position) { return {true, first_position}; }

  /// The entries [begin, end) of `count` that query token i sees; begin = end for none.
  struct Range {
    std::size_t begin, end;
  };
  Range seen_by(std::size_t i, std::size_t count) const {
    if (!banded) return {0, count};
    const std::size_t position = first_position + i;
    const std::size_t end = position < min_distance ? 0 : std::min({count, end_entry, position - min_distance + 1});
    const std::size_t begin = std::max(first_entry, position > max_distance ? position - max_distance : 0);
    return {std::min(begin, end), end};
  }
};

/// Attention over every entry of the blocks.
/// queries: [tokens, heads, head_dim]; blocks: [kv_heads, blocks], query head h reads kv head h / (heads / kv_heads);
/// out: overwritten. The partial of each block is computed by itself and the partials are merged in order of the
/// blocks, so the result is the same to the last bit for any number of threads, and for queries that come together or
/// one by one.
void attend(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> blocks, float scale,
            Visibility visibility, AttentionPartial out);

/// Bytes of scratch space that it takes for partials of blocks side by side, as it does for few queries.
/// queries: their extents; blocks: of each kv head; entries: their type.
std::size_t attend_split_bytes(const CpuExec& exec, std::array<std::size_t, 3> queries, std::size_t kv_heads,
                               std::size_t blocks, DType entries);

/// Attention over chosen entries.
/// ids: [tokens, heads, k], entries numbered through the blocks in order, ascending, then -1 where there are fewer than
/// k; scores: [tokens, heads, k], their q . k (not scaled). out: overwritten.
void attend_selected(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> blocks,
                     View<const std::int64_t, 3> ids, View<const float, 3> scores, float scale, AttentionPartial out);

/// into = into merged with from.
void merge(CpuExec& exec, AttentionPartial into, AttentionPartial from);

/// out = sum / weight: the attention output. out: [tokens, heads, head_dim].
void finish(CpuExec& exec, AttentionPartial partial, View<float, 3> out);
/// That of one token. out: [heads, head_dim].
void finish_token(const AttentionPartial& partial, std::size_t token, float* out);

}  // namespace memlane
