#include "kernels/key_lists.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/cpu/list_search.h"
#include "kernels/cpu/quantised_layout.h"

namespace memlane {

std::size_t key_list_panel_bytes(std::size_t head_dim) {
  return quantised_panel_bytes(WeightFormat::int8, head_dim);
}

void write_list_key(const MicroKernels& micro, std::byte* panels, std::size_t at, const float* key,
                    std::size_t head_dim) {
  const std::size_t lane = at % kPanelEntries;
  std::byte* group = panels + at / kPanelEntries * key_list_panel_bytes(head_dim);
  for (std::size_t first = 0, g = 0; first < head_dim; first += kQuantGroup, ++g) {
    const std::size_t length = group_length(head_dim, g);
    std::int8_t values[kQuantGroup];
    float scale = 0;
    std::int32_t sum = 0;
    micro.quantised->quantise_row(key + first, std::min(kQuantGroup, head_dim - first), values, kQuantStep, &scale,
                                  &sum);
    std::memcpy(group + lane * sizeof(float), &scale, sizeof scale);
    for (std::size_t i = 0; i < length; i += 4) {
      std::memcpy(group + kScalesBytes + (i / 4 * kPanelEntries + lane) * 4, values + i, 4);
    }
    group += group_bytes(WeightFormat::int8, length);
  }
}

namespace {

std::size_t candidates_of(const ListSearch& search, std::size_t entries) {
  return std::max<std::size_t>(std::min(search.candidates, entries), 1);
}

}  // namespace

std::size_t search_lists_bytes(std::size_t threads, const ListSearch& search, const ListSearchSize& size) {
  using namespace list_search;
  const std::size_t width = filled(size.lists + size.chunks * (kPanelEntries - 1));
  const SearchSize space = {.head_dim = size.head_dim,
                            .chunks = size.chunks,
                            .lists = size.lists,
                            .width = width,
                            .probes = search.probes,
                            .candidates = candidates_of(search, size.entries),
                            .estimates = size.estimates,
                            .panels = width / kPanelEntries,  // with cells a row compares fewer, and there are
                            .cells = filled(size.lists / ListCells::kLeastLists + size.chunks * (kPanelEntries - 1))};
  const std::size_t group = size.heads / size.kv_heads;
  const std::size_t rows = space.rows_at_most(size.tokens * group, size.kv_heads, threads);
  return threads * SearchSpace::bytes(space, std::max(rows / group, std::size_t{1}) * group);
}

void search_lists(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> blocks,
                  View<const ListChunk, 2> chunks, const ListSearch& search, View<std::int64_t, 3> ids,
                  View<float, 3> scores, const AttentionPartial* tail) {
  using namespace list_search;
  const std::size_t kv_heads = blocks.extent(0), k = ids.extent(2);
  std::vector<Catalogue> catalogues;
  const bool all_lists = search.needs_weights(tail != nullptr);
  for (std::size_t head = 0; head < kv_heads; ++head) catalogues.emplace_back(chunks, head, search, all_lists);
  MEMLANE_EXPECTS(k >= 1 && search.candidates >= k && search.probes >= 1 && ids.extents() == scores.extents());
  MEMLANE_EXPECTS(chunks.extent(0) == kv_heads);
  const BlockBegins begins(blocks);
  MEMLANE_EXPECTS(begins.entries() <= std::numeric_limits<std::uint32_t>::max());
  SearchSize size = {.head_dim = queries.extent(2),
                     .chunks = chunks.extent(1),
                     .lists = catalogues.front().present,
                     .width = catalogues.front().width(),
                     .probes = search.probes,
                     .candidates = candidates_of(search, begins.entries()),
                     .estimates = tail != nullptr,
                     .panels = 0};
  for (const Catalogue& each : catalogues) {  // of saved ones nobody knows that they are of a size
    size.lists = std::max(size.lists, each.present);
    size.width = std::max(size.width, each.width());
    size.panels = std::max(size.panels, each.panels);
    if (each.has_opened()) size.cells = std::max(size.cells, each.cell_begins.back());
  }
  const QueryRows rows(queries, kv_heads,
                       size.rows(queries.extent(0) * queries.extent(1) / kv_heads, kv_heads, exec.threads()));
  if (search.count != nullptr) search.count->rows += rows.tokens * rows.heads;
  exec.pool().run(rows.kv_heads * rows.items_per_head, [&](std::size_t index, std::size_t worker) {
    const QueryRows::Item item = rows.item(index % rows.items_per_head, index / rows.items_per_head);
    RowSearch(exec, worker, rows, catalogues[item.kv_head], search, size, k)
        .run(queries, blocks, begins, item, ids, scores, tail);
  });
}

}  // namespace memlane
