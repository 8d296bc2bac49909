// Entries of a mapped file looked at in pieces, so that what is resident of them can be kept below a limit.
#include <algorithm>

#include "kernels/top_k.h"
#include "memory/memory.h"

namespace memlane {

namespace {

/// Of one kv head.
std::size_t entries_in(View<const EntryBlock, 2> blocks, std::size_t begin, std::size_t end) {
  std::size_t entries = 0;
  for (std::size_t block = begin; block < end; ++block) entries += blocks.data()[block].count;
  return entries;
}

/// Blocks [begin, end) of every kv head, side by side in `storage`.
View<const EntryBlock, 2> columns(View<const EntryBlock, 2> all, std::size_t begin, std::size_t end,
                                  std::vector<EntryBlock>& storage) {
  storage.clear();
  for (std::size_t head = 0; head < all.extent(0); ++head) {
    const EntryBlock* const of_head = all.data() + head * all.extent(1);
    storage.insert(storage.end(), of_head + begin, of_head + end);
  }
  return {storage.data(), {all.extent(0), end - begin}};
}

}  // namespace

bool Memory::in_pieces(View<const EntryBlock, 2> all, std::size_t bytes_per_entry) const {
  return pieces_.pause && entries_in(all, 0, all.extent(1)) * bytes_per_entry > pieces_.bytes;
}

void Memory::attend_in_pieces(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> all, float scale,
                              AttentionPartial out) {
  const std::size_t entry = shape_.kv_heads * 2 * shape_.head_dim * size_of(shape_.dtype);
  if (!in_pieces(all, entry)) return memlane::attend(exec, queries, all, scale, Visibility::all(), out);
  // Partials of blocks are merged one by one in their order, as in a single call: that makes the bits the same.
  std::size_t seen = 0;
  for (std::size_t block = 0; block < all.extent(1); ++block) {
    const View<const EntryBlock, 2> column = columns(all, block, block + 1, of_document_);
    const AttentionPartial to =
        block == 0 ? out : of_piece_.get(queries.extent(0), queries.extent(1), queries.extent(2));
    memlane::attend(exec, queries, column, scale, Visibility::all(), to);
    if (block > 0) merge(exec, out, to);
    seen += column.data()->count * entry;
    if (seen < pieces_.bytes) continue;
    pieces_.pause();
    seen = 0;
  }
}

void Memory::scan_in_pieces(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> all,
                            View<std::int64_t, 3> ids, View<float, 3> scores) {
  const std::size_t key = shape_.kv_heads * shape_.head_dim * size_of(shape_.dtype);
  if (!in_pieces(all, key)) return top_k_scan(exec, queries, all, ids, scores);
  const std::size_t rows = ids.extent(0) * ids.extent(1), k = ids.extent(2);
  std::fill_n(ids.data(), ids.size(), -1);
  Buffer<std::int64_t> piece_ids(rows * k), both_ids(2 * rows * k);
  Buffer<float> piece_scores(rows * k), both_scores(2 * rows * k);
  const std::array<std::size_t, 3> both = {ids.extent(0), ids.extent(1), 2 * k};
  std::int64_t base = 0;
  for (std::size_t begin = 0; begin < all.extent(1);) {
    std::size_t end = begin + 1;
    while (end < all.extent(1) && entries_in(all, begin, end + 1) * key <= pieces_.bytes) ++end;
    top_k_scan(exec, queries, columns(all, begin, end, of_document_), piece_ids.view<3>(ids.extents()),
               piece_scores.view<3>(ids.extents()));
    for (std::size_t row = 0; row < rows; ++row) {
      std::copy_n(ids.data() + row * k, k, both_ids.data() + 2 * row * k);
      std::copy_n(scores.data() + row * k, k, both_scores.data() + 2 * row * k);
      std::copy_n(piece_scores.data() + row * k, k, both_scores.data() + (2 * row + 1) * k);
      for (std::size_t i = 0; i < k; ++i) {
        const std::int64_t id = piece_ids.data()[row * k + i];
        both_ids.data()[(2 * row + 1) * k + i] = id < 0 ? -1 : base + id;
      }
    }
    select_best(exec, both_ids.view<3>(both), both_scores.view<3>(both), ids, scores);
    base += static_cast<std::int64_t>(entries_in(all, begin, end));
    begin = end;
    pieces_.pause();
  }
}

}  // namespace memlane
