// Chunks of many entries, clustered in two steps: cells first, about as many as a cell then has lists. A key is
// compared with two square roots of the number of lists instead of all.
#include <algorithm>
#include <cmath>

#include "kernels/clusters.h"
#include "kernels/error.h"
#include "memory/list_index.h"
#include "memory/list_layout.h"

namespace memlane {

namespace {

constexpr std::size_t kBlock = 4096;     // entries read at once
constexpr std::size_t kLeastLists = 64;  // that are worth cells
constexpr std::size_t kFewestKeys = 8;   // of a list

std::size_t cells_for(std::size_t lists) {
  if (lists <= kLeastLists) return 1;
  return static_cast<std::size_t>(std::ceil(std::sqrt(static_cast<double>(lists))));
}

/// Entries [begin, end) in order of their cells, and in their own order within a cell, with their keys as they are
/// stored.
class Cells {
 public:
  /// of: [end - begin], the cell of each.
  Cells(const EntryRows& entries, std::size_t begin, std::span<const std::uint32_t> of, std::size_t cells)
      : head_dim_(entries.head_dim()), dtype_(entries.dtype()), begins_(cells + 1), ids_(of.size()) {
    for (const std::uint32_t cell : of) ++begins_[cell + 1];
    for (std::size_t cell = 0; cell < cells; ++cell) begins_[cell + 1] += begins_[cell];
    keys_ = Buffer<std::byte>(of.size() * head_dim_ * size_of(dtype_));
    std::vector<std::size_t> next(begins_.begin(), begins_.end() - 1);
    std::vector<float> keys(kBlock * head_dim_);
    for (std::size_t first = 0; first < of.size(); first += kBlock) {
      const std::size_t count = std::min(kBlock, of.size() - first);
      entries.read_keys(begin + first, begin + first + count, keys.data());
      with_type(dtype_, [&](auto type) {
        using T = decltype(type);
        for (std::size_t i = 0; i < count; ++i) {
          const std::size_t place = next[of[first + i]]++;
          ids_[place] = static_cast<std::uint32_t>(begin + first + i);
          T* const to = reinterpret_cast<T*>(keys_.data()) + place * head_dim_;
          std::transform(keys.data() + i * head_dim_, keys.data() + (i + 1) * head_dim_, to, from_float<T>);
        }
      });
    }
  }

  std::span<const std::uint32_t> ids(std::size_t cell) const {
    return std::span(ids_).subspan(begins_[cell], begins_[cell + 1] - begins_[cell]);
  }
  /// out: [ids(cell).size(), head_dim].
  void read_keys(std::size_t cell, float* out) const {
    with_type(dtype_, [&](auto type) {
      using T = decltype(type);
      const T* const keys = reinterpret_cast<const T*>(keys_.data());
      std::transform(keys + begins_[cell] * head_dim_, keys + begins_[cell + 1] * head_dim_, out,
                     [](T value) { return to_float(value); });
    });
  }

 private:
  std::size_t head_dim_;
  DType dtype_;
  std::vector<std::size_t> begins_;  // [cells + 1]
  std::vector<std::uint32_t> ids_;
  Buffer<std::byte> keys_;
};

/// Lists of a cell: its share of all, by its keys.
std::size_t lists_of_cell(std::size_t keys, std::size_t all_keys, std::size_t lists) {
  return keys == 0 ? 0 : std::clamp<std::size_t>((keys * lists + all_keys / 2) / all_keys, 1, keys);
}

}  // namespace

std::size_t ListIndex::merged_lists(const ListSettings& settings, std::size_t entries) {
  return std::max<std::size_t>(entries / std::max(settings.chunk / settings.lists / 2, kFewestKeys), 1);
}

std::size_t ListIndex::merging_bytes(const ListSettings& settings, std::size_t head_dim, std::size_t key_bytes,
                                     std::size_t entries) {
  const std::size_t lists = merged_lists(settings, entries);
  // Keys, ids and cells of all; the lists; and of a cell as floats five rows for each entry. Cells differ in size.
  return entries * (key_bytes + 2 * sizeof(std::uint32_t)) +
         (entries + lists * kPanelEntries) / kPanelEntries * key_list_panel_bytes(head_dim) +
         4 * entries / cells_for(lists) * 5 * head_dim * sizeof(float);
}

bool ListIndex::is_to_be_merged() const {
  if (settings_.lists == 1 || chunks_.size() < kMerged) return false;
  return std::all_of(chunks_.end() - kMerged, chunks_.end(), [&](const Chunk& chunk) {
    return chunk.level == chunks_.back().level && chunk.count == chunk.capacity;
  });
}

/// The cell of each of the entries [begin, end).
std::vector<std::uint32_t> ListIndex::cells_of(const MicroKernels& micro, const EntryRows& entries, std::size_t begin,
                                               std::size_t end, std::size_t cells) const {
  const std::size_t n = end - begin;
  std::vector<std::uint32_t> of(n);
  if (cells == 1) return of;
  const std::size_t used = std::min(n, kTrainingKeys * cells);
  std::vector<float> sample(used * head_dim_), storage;
  for (std::size_t i = 0; i < used; ++i) {
    const std::size_t entry = begin + i * n / used;
    entries.read_keys(entry, entry + 1, sample.data() + i * head_dim_);
  }
  const std::vector<float> means = k_means(micro, measured({sample.data(), {used, head_dim_}}, storage), cells);
  const ClusterMeans clusters({means.data(), {cells, head_dim_}});
  std::vector<float> keys(kBlock * head_dim_);
  for (std::size_t first = 0; first < n; first += kBlock) {
    const std::size_t count = std::min(kBlock, n - first);
    entries.read_keys(begin + first, begin + first + count, keys.data());
    const auto nearest = clusters.nearest(micro, measured({keys.data(), {count, head_dim_}}, storage));
    std::copy(nearest.begin(), nearest.end(), of.begin() + static_cast<std::ptrdiff_t>(first));
  }
  return of;
}

/// A full chunk of the entries [begin, end), clustered together.
ListIndex::Chunk ListIndex::merged(const MicroKernels& micro, const EntryRows& entries, std::size_t begin,
                                   std::size_t end) const {
  const std::size_t n = end - begin, wanted = merged_lists(settings_, n), cell_count = cells_for(wanted);
  const Cells cells(entries, begin, cells_of(micro, entries, begin, end, cell_count), cell_count);
  std::size_t lists = 0;
  for (std::size_t cell = 0; cell < cell_count; ++cell) lists += lists_of_cell(cells.ids(cell).size(), n, wanted);
  Chunk chunk = empty_chunk(lists);
  chunk.capacity = n;
  chunk.level = chunks_.empty() ? 1 : chunks_.back().level + 1;
  const std::size_t panel_bytes = key_list_panel_bytes(head_dim_);
  chunk.panels = Buffer<std::byte>((n / kPanelEntries + lists) * panel_bytes);
  chunk.entries = Buffer<std::uint32_t>(n);
  std::byte* panels = chunk.panels.data();
  std::uint32_t* ids = chunk.entries.data();
  std::size_t first_list = 0;
  std::vector<float> storage;
  std::vector<std::vector<std::uint32_t>> rows;
  for (std::size_t cell = 0; cell < cell_count; ++cell) {
    const std::span<const std::uint32_t> of_cell = cells.ids(cell);
    const std::size_t count = of_cell.size(), lists_here = lists_of_cell(count, n, wanted);
    if (count == 0) continue;
    Buffer<float> key_rows(count * head_dim_), value_rows(count * head_dim_);
    cells.read_keys(cell, key_rows.data());
    for (std::size_t i = 0; i < count; ++i) {
      entries.read_values(of_cell[i], of_cell[i] + 1, value_rows.data() + i * head_dim_);
    }
    const View<const float, 2> keys(key_rows.data(), {count, head_dim_});
    const View<const float, 2> values(value_rows.data(), {count, head_dim_});
    const std::vector<float> means = cluster(micro, keys, lists_here);
    std::vector<float> measured_means;
    std::vector<std::uint32_t> nearest = ClusterMeans(measured({means.data(), {lists_here, head_dim_}}, measured_means))
                                             .nearest(micro, measured(keys, storage));
    rows.assign(lists_here, {});
    for (std::size_t i = 0; i < count; ++i) rows[nearest[i]].push_back(static_cast<std::uint32_t>(i));
    for (std::size_t list = 0; list < lists_here; ++list) {
      if (rows[list].empty()) continue;
      add_moments(micro, chunk, first_list + list, rows[list], keys, values);
      KeyList& to = chunk.of[first_list + list].keys;
      to = {panels, ids, rows[list].size()};
      std::fill_n(panels, panels_for(to.count) * panel_bytes, std::byte{0});
      for (std::size_t i = 0; i < to.count; ++i) {
        const std::uint32_t row = rows[list][i];
        write_list_key(micro, panels, i, keys.data() + row * head_dim_, head_dim_);
        ids[i] = of_cell[row];
      }
      panels += panels_for(to.count) * panel_bytes;
      ids += to.count;
    }
    for (std::uint32_t& list : nearest) list += static_cast<std::uint32_t>(first_list);
    add_covariances(micro, chunk, nearest, keys, values);
    chunk.count += count;
    first_list += lists_here;
  }
  update_spreads(chunk);
  return chunk;
}

std::unique_ptr<ListIndex> ListIndex::whole(const ListSettings& settings, std::size_t head_dim,
                                            const MicroKernels& micro, const EntryRows& entries) {
  auto index = std::make_unique<ListIndex>(settings, head_dim);
  if (entries.size() == 0) return index;
  index->chunks_.push_back(index->merged(micro, entries, 0, entries.size()));
  index->size_ = entries.size();
  index->update_views(0);
  return index;
}

}  // namespace memlane
