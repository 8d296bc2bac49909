#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "kernels/attention.h"
#include "kernels/entries.h"
#include "kernels/exec.h"

namespace memlane {

/// Keys that lie near one another. Each is rounded to int8 with a scale of its own and lies in panels of 32 keys, laid
/// out as int8 weights of 32 output rows are (kernels/cpu/quantised_layout.h); places beyond the count are zeros.
struct KeyList {
  const std::byte* panels = nullptr;
  const std::uint32_t* entries = nullptr;  ///< [count]: which entry of its document each key is of
  std::size_t count = 0;
};

/// Bytes of one panel of a list.
std::size_t key_list_panel_bytes(std::size_t head_dim);
/// Writes a key into place `at` of a list's panels. key: [head_dim].
void write_list_key(const MicroKernels& micro, std::byte* panels, std::size_t at, const float* key,
                    std::size_t head_dim);

/// Lists of a chunk that were made of one cell of its keys, and lie one behind the other: what is known of each cell as
/// a whole.
struct ListCells {
  static constexpr std::size_t kLeastLists = 4;  ///< in the mean over the cells of a chunk
  std::size_t count = 0;                         ///< 0: the chunk has no cells
  const std::uint32_t* begins = nullptr;  ///< [count + 1]: each one's first list, rising from 0 to the chunk's lists
  const float* means = nullptr;           ///< of keys, [ceil(count / 32)][head_dim][32]
  const float* variances = nullptr;       ///< of each element of keys, the same
  const float* log_counts = nullptr;      ///< of keys, [count filled up to a multiple of 32]: -inf for absent cells
};

/// Lists of entries of one key/value head that were clustered together, and what is known of each as a whole.
struct ListChunk {
  const KeyList* list = nullptr;  ///< [lists]
  std::size_t lists = 0;
  ListCells cells;
  const std::byte* mean_codes = nullptr;  ///< means of the keys, as the keys of a KeyList are
  const float* means = nullptr;           ///< the same means, [ceil(lists / 32)][head_dim][32]
  const float* spreads = nullptr;  ///< [lists filled up to a multiple of 32]: the variance of a list's keys, to that
                                   ///< of all keys around the means of their lists
  /// [lists filled up to a multiple of 32]: of n normal numbers of variance v the greatest is about 2 sqrt(v log n)
  /// above their mean; without the part of v that depends on the query. -inf for empty and absent lists.
  const float* reaches = nullptr;
  const float* log_counts = nullptr;   ///< [lists filled up to a multiple of 32]: -inf for empty and absent lists
  const float* value_means = nullptr;  ///< [ceil(head_dim / 32)][lists][32]
  /// Covariances of all keys around the means of their lists, with themselves and with values:
  /// [ceil(head_dim / 32)][head_dim][32], a key's element by the second axis.
  const float* key_covariance = nullptr;
  const float* value_covariance = nullptr;
  std::uint32_t first_entry = 0;  ///< of the document, in the numbering of the memory
};

/// What a search looked at, for all of its query rows together.
struct SearchCount {
  std::atomic<std::uint64_t> rows{0};
  std::atomic<std::uint64_t> lists{0};  ///< whose means were compared, and cells
  std::atomic<std::uint64_t> keys{0};   ///< that were scanned
};

struct ListSearch {
  std::size_t probes = 0;      ///< lists that a query row scans at most
  std::size_t candidates = 0;  ///< keys that are scored again as they are stored, at least k
  double mass = 1;  ///< below 1: no more lists are scanned, and no more entries kept, than hold this share of the
                    ///< weight, as far as it is known
  float scale = 1;  ///< of scores in the softmax
  SearchCount* count = nullptr;
  /// Called for stored keys some time before they are read, if they may lie on a disk; null: they do not.
  void (*read_ahead)(const void* data, std::size_t bytes) = nullptr;

  /// Whether weights of all lists are needed, with an estimate of what is not scanned or without.
  bool needs_weights(bool estimates) const { return estimates || mass < 1; }
};

/// What a search is of, for what it takes.
struct ListSearchSize {
  std::size_t tokens = 0, heads = 0, kv_heads = 0, head_dim = 0;
  std::size_t entries = 0;
  std::size_t chunks = 0, lists = 0;  ///< of a kv head
  bool estimates = false;             ///< whether there is a tail
};

/// Bytes of scratch space that search_lists() takes at most, of all threads.
std::size_t search_lists_bytes(std::size_t threads, const ListSearch& search, const ListSearchSize& size);

/// Approximate search: for every query token and head the lists whose best key is expected to have the greatest score,
/// first 128 of them, then those where that is greater than the least of the candidates found; of their keys, scanned
/// in int8, the best candidates; and of those the k best by their stored keys, of equal scores those with smaller ids.
/// Of very many lists in cells only those of the cells whose best key is expected to have the greatest score are
/// looked at, about 40 times the square root of their number and twice `probes` at least (kernels/cpu/list_catalogue.h
/// says when), unless weights of all are asked for (a tail, or mass below 1).
/// If a list's n keys are normally distributed with mean m and covariance r C (r its spread, C that of the chunk) and
/// values follow keys linearly, with mean w and covariance r B, its weight is n exp(s q.m + r s^2 qCq / 2) and the
/// weighted mean of its values w + r s qB.
///
/// queries: [tokens, heads, head_dim]; blocks: [kv_heads, blocks], the stored entries; chunks: [kv_heads, chunks],
/// whose lists hold each entry once. ids, scores: [tokens, heads, k], as top_k_scan fills them. tail: if not null,
/// overwritten by an estimate of the partial attention of all other entries. Of scanned ones the weights are known (in
/// int8), of the others the lists' expected weights count; values are the means of their lists. The estimation of what
/// is not retrieved follows RetroInfer (Chen et al. 2025), which has no variances.
void search_lists(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> blocks,
                  View<const ListChunk, 2> chunks, const ListSearch& search, View<std::int64_t, 3> ids,
                  View<float, 3> scores, const AttentionPartial* tail);

}  // namespace memlane
