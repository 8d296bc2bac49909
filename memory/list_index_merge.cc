// Chunks of many entries, clustered in two steps: cells first, about as many as a cell then has lists. A key is
// compared with two square roots of the number of lists instead of all.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "kernels/clusters.h"
#include "kernels/error.h"
#include "memory/list_index.h"
#include "memory/list_layout.h"

namespace memlane {

namespace {

constexpr std::size_t kBlock = 4096;   // entries read at once
constexpr std::size_t kFewLists = 64;  // that are not worth cells
constexpr std::size_t kLargest = 4;    // of a cell, to the mean

std::size_t cells_for(std::size_t lists) {
  if (lists <= kFewLists) return 1;
  return static_cast<std::size_t>(std::ceil(std::sqrt(static_cast<double>(lists))));
}

/// The keys of entries [begin, end) as they are stored, one row behind the other: panels spread a key over many lines.
class KeyRows {
 public:
  KeyRows(const EntryRows& entries, std::size_t begin, std::size_t end, const Watch& watch)
      : head_dim_(entries.head_dim()),
        dtype_(entries.dtype()),
        size_(end - begin),
        keys_(size_ * head_dim_ * size_of(dtype_)) {
    std::vector<float> rows(kBlock * head_dim_);
    for (std::size_t first = 0; first < size_; first += kBlock) {
      watch(0);
      const std::size_t count = std::min(kBlock, size_ - first);
      entries.read_keys(begin + first, begin + first + count, rows.data());
      with_type(dtype_, [&](auto type) {
        using T = decltype(type);
        std::transform(rows.data(), rows.data() + count * head_dim_,
                       reinterpret_cast<T*>(keys_.data()) + first * head_dim_, from_float<T>);
      });
    }
  }

  std::size_t size() const { return size_; }
  /// out: [head_dim].
  void read(std::size_t row, float* out) const {
    with_type(dtype_, [&](auto type) {
      using T = decltype(type);
      const T* const key = reinterpret_cast<const T*>(keys_.data()) + row * head_dim_;
      std::transform(key, key + head_dim_, out, [](T value) { return to_float(value); });
    });
  }

 private:
  std::size_t head_dim_;
  DType dtype_;
  std::size_t size_;
  Buffer<std::byte> keys_;
};

/// Rows in order of their cells, and in their own order within a cell. A cell much larger than others is cut into
/// several: keys that are all alike would otherwise be compared with the means of all lists.
class Cells {
 public:
  /// of: the cell of each row.
  Cells(std::span<const std::uint32_t> of, std::size_t cells) : rows_(of.size()) {
    std::vector<std::size_t> next(cells + 1);
    for (const std::uint32_t cell : of) ++next[cell + 1];
    std::partial_sum(next.begin(), next.end(), next.begin());
    const std::size_t most = (of.size() + cells - 1) / cells * kLargest;
    for (std::size_t cell = 0; cell < cells; ++cell) {
      const std::size_t count = next[cell + 1] - next[cell], pieces = (count + most - 1) / most;
      for (std::size_t i = 0; i < pieces; ++i) begins_.push_back(next[cell] + count * i / pieces);
    }
    begins_.push_back(of.size());
    for (std::size_t row = 0; row < of.size(); ++row) rows_[next[of[row]]++] = static_cast<std::uint32_t>(row);
  }
  /// None of them empty.
  std::size_t size() const { return begins_.size() - 1; }
  std::span<const std::uint32_t> rows(std::size_t cell) const {
    return std::span(rows_).subspan(begins_[cell], begins_[cell + 1] - begins_[cell]);
  }

 private:
  std::vector<std::size_t> begins_;
  std::vector<std::uint32_t> rows_;
};

/// Lists of a cell: its share of all, by its keys.
std::size_t lists_of_cell(std::size_t keys, std::size_t all_keys, std::size_t lists) {
  return std::clamp<std::size_t>((keys * lists + all_keys / 2) / all_keys, 1, keys);
}

}  // namespace

std::size_t ListIndex::merged_lists(const ListSettings& settings, std::size_t entries) {
  return std::max<std::size_t>(entries / std::max(settings.chunk / settings.lists / 2, kLeastKeys), 1);
}

std::size_t ListIndex::means_compared(const ListSettings& settings, std::size_t entries) {
  const std::size_t lists = merged_lists(settings, entries), cells = cells_for(lists);
  return cells == 1 ? lists : cells + lists / cells;
}

std::size_t ListIndex::merging_bytes(const ListSettings& settings, std::size_t head_dim, std::size_t key_bytes,
                                     std::size_t entries) {
  const std::size_t lists = merged_lists(settings, entries);
  // Keys, places in cells, cells and lists of all; the lists; and of the largest cell as floats three rows for each
  // entry.
  return entries * (key_bytes + 3 * sizeof(std::uint32_t)) + lists * head_dim * (sizeof(double) + sizeof(float)) +
         (entries + lists * kPanelEntries) / kPanelEntries * key_list_panel_bytes(head_dim) +
         std::min(entries, kLargest * entries / cells_for(lists)) * 3 * head_dim * sizeof(float);
}

/// Which chunks are clustered together now that the last one is full: kMerged of one level, and with what would come of
/// them as many of the next, and so on.
ListIndex::Merge ListIndex::merge() const {
  Merge found = {chunks_.size(), 0};
  if (settings_.lists == 1 || chunks_.empty() || chunks_.back().count < chunks_.back().capacity) return found;
  std::size_t first = chunks_.size() - 1, level = chunks_.back().level;
  const auto alike = [&] {
    std::size_t count = 1;
    while (count < kMerged && count <= first && chunks_[first - count].level == level) ++count;
    return count;
  };
  while (alike() == kMerged) {
    first -= kMerged - 1;
    ++level;
    found = {first, level};
  }
  return found;
}

/// The nearest of `count` cells to each row. read(row, out) reads one.
template <class Read>
std::vector<std::uint32_t> ListIndex::cells_of(const MicroKernels& micro, std::size_t rows, std::size_t count,
                                               const Read& read, const Watch& watch) const {
  std::vector<std::uint32_t> of(rows);
  if (count == 1) return of;
  const std::size_t used = std::min(rows, kTrainingKeys * count);
  std::vector<float> sample(used * head_dim_), keys(kBlock * head_dim_), storage;
  for (std::size_t i = 0; i < used; ++i) read(i * rows / used, sample.data() + i * head_dim_);
  const std::vector<float> means = k_means(micro, measured({sample.data(), {used, head_dim_}}, storage), count);
  const ClusterMeans clusters({means.data(), {count, head_dim_}});
  for (std::size_t first = 0; first < rows; first += kBlock) {
    watch(0);
    const std::size_t block = std::min(kBlock, rows - first);
    for (std::size_t i = 0; i < block; ++i) read(first + i, keys.data() + i * head_dim_);
    const auto nearest = clusters.nearest(micro, measured({keys.data(), {block, head_dim_}}, storage));
    std::copy(nearest.begin(), nearest.end(), of.begin() + static_cast<std::ptrdiff_t>(first));
  }
  return of;
}

/// A full chunk of the entries [begin, end), clustered together. Keys and values are read from beginning to end, once
/// each: they may lie in a file.
ListIndex::Chunk ListIndex::merged(const MicroKernels& micro, const EntryRows& entries, std::size_t begin,
                                   std::size_t end, std::size_t level, const Watch& watch) const {
  const std::size_t n = end - begin, wanted = merged_lists(settings_, n);
  const KeyRows keys(entries, begin, end, watch);
  const auto read = [&](std::size_t row, float* out) { keys.read(row, out); };
  const Cells cells(cells_of(micro, n, cells_for(wanted), read, watch), cells_for(wanted));
  std::size_t lists = 0;
  for (std::size_t cell = 0; cell < cells.size(); ++cell) lists += lists_of_cell(cells.rows(cell).size(), n, wanted);
  Chunk chunk = empty_chunk(lists);
  chunk.capacity = n;
  chunk.level = level;
  const std::size_t panel_bytes = key_list_panel_bytes(head_dim_);
  chunk.panels = Buffer<std::byte>((n / kPanelEntries + lists) * panel_bytes);
  chunk.entries = Buffer<std::uint32_t>(n);
  std::byte* panels = chunk.panels.data();
  std::uint32_t* ids = chunk.entries.data();
  std::vector<std::uint32_t> list_of(n);
  std::vector<std::vector<std::uint32_t>> of_list;
  std::vector<float> storage, measured_means;
  std::vector<std::uint32_t> begins(1);
  for (std::size_t cell = 0, first_list = 0; cell < cells.size(); ++cell) {
    const std::span<const std::uint32_t> rows = cells.rows(cell);
    const std::size_t here = lists_of_cell(rows.size(), n, wanted);
    Buffer<float> of_cell(rows.size() * head_dim_);
    for (std::size_t i = 0; i < rows.size(); ++i) keys.read(rows[i], of_cell.data() + i * head_dim_);
    const View<const float, 2> points(of_cell.data(), {rows.size(), head_dim_});
    const std::vector<float> means = cluster(micro, points, here);
    const ClusterMeans clusters(measured({means.data(), {here, head_dim_}}, measured_means));
    const std::vector<std::uint32_t> nearest = clusters.nearest(micro, measured(points, storage));
    of_list.assign(here, {});
    for (std::size_t i = 0; i < rows.size(); ++i) {
      of_list[nearest[i]].push_back(static_cast<std::uint32_t>(i));
      list_of[rows[i]] = static_cast<std::uint32_t>(first_list + nearest[i]);
    }
    for (std::size_t list = 0; list < here; ++list) {
      KeyList& to = chunk.of[first_list + list].keys;
      to = {panels, ids, of_list[list].size()};
      std::fill_n(panels, panels_for(to.count) * panel_bytes, std::byte{0});
      for (std::size_t i = 0; i < to.count; ++i) {
        const std::uint32_t row = of_list[list][i];
        write_list_key(micro, panels, i, points.data() + row * head_dim_, head_dim_);
        ids[i] = static_cast<std::uint32_t>(begin) + rows[row];
      }
      set_key_moments(micro, chunk, first_list + list, of_list[list], points);
      panels += panels_for(to.count) * panel_bytes;
      ids += to.count;
    }
    first_list += here;
    begins.push_back(static_cast<std::uint32_t>(first_list));
    watch(rows.size());
  }
  add_value_moments(micro, chunk, list_of, entries, begin, watch);
  update_spreads(chunk);
  if (cells.size() > 1 && cells.size() <= lists / ListCells::kLeastLists) set_cells(chunk, std::move(begins));
  return chunk;
}

/// Mean, variance and number of a list's keys. rows: of keys.
void ListIndex::set_key_moments(const MicroKernels& micro, Chunk& chunk, std::size_t list,
                                std::span<const std::uint32_t> rows, View<const float, 2> keys) const {
  if (rows.empty()) return;
  const auto count = static_cast<double>(rows.size());
  std::vector<double> sums(head_dim_), squares(head_dim_);
  for (const std::uint32_t row : rows) {
    for (std::size_t d = 0; d < head_dim_; ++d) {
      const auto x = static_cast<double>(keys.data()[row * head_dim_ + d]);
      sums[d] += x;
      squares[d] += x * x;
    }
  }
  std::vector<float> mean(head_dim_);
  double variance = 0;
  for (std::size_t d = 0; d < head_dim_; ++d) {
    mean[d] = static_cast<float>(sums[d] / count);
    chunk.means.data()[in_panels(list, d, head_dim_)] = mean[d];
    variance += std::max(squares[d] - sums[d] * sums[d] / count, 0.0) / count;
  }
  chunk.variances[list] = static_cast<float>(variance);
  chunk.log_counts.data()[list] = static_cast<float>(std::log(count));
  write_list_key(micro, chunk.mean_codes.data(), list, mean.data(), head_dim_);
}

/// What is known of cells whose lists are complete: that follows from their moments. Within a list keys are taken to
/// vary as all keys of the chunk do around the means of their lists, times the list's spread.
void ListIndex::set_cells(Chunk& chunk, std::vector<std::uint32_t> begins) const {
  const std::size_t cells = begins.size() - 1, filled = panels_for(cells) * kPanelEntries;
  chunk.cell_begins = std::move(begins);
  chunk.cell_means = Buffer<float>::zeroed(filled * head_dim_);
  chunk.cell_variances = Buffer<float>::zeroed(filled * head_dim_);
  chunk.cell_log_counts = Buffer<float>(filled);
  std::fill_n(chunk.cell_log_counts.data(), filled, kNone);
  std::vector<double> within(head_dim_), sums(head_dim_), squares(head_dim_);
  for (std::size_t d = 0; d < head_dim_; ++d) {
    within[d] = static_cast<double>(chunk.key_covariance.data()[in_value_panels(d, d, head_dim_)]);
  }
  for (std::size_t cell = 0; cell < cells; ++cell) {
    std::fill(sums.begin(), sums.end(), 0.0);
    std::fill(squares.begin(), squares.end(), 0.0);
    double count = 0, spread = 0;
    for (std::size_t list = chunk.cell_begins[cell]; list < chunk.cell_begins[cell + 1]; ++list) {
      const auto keys = static_cast<double>(chunk.of[list].keys.count);
      count += keys;
      spread += keys * static_cast<double>(chunk.spreads.data()[list]);
      for (std::size_t d = 0; d < head_dim_; ++d) {
        const auto mean = static_cast<double>(chunk.means.data()[in_panels(list, d, head_dim_)]);
        sums[d] += keys * mean;
        squares[d] += keys * mean * mean;
      }
    }
    if (count == 0) continue;
    chunk.cell_log_counts.data()[cell] = static_cast<float>(std::log(count));
    for (std::size_t d = 0; d < head_dim_; ++d) {
      const double mean = sums[d] / count;
      const double between = std::max(squares[d] / count - mean * mean, 0.0);
      chunk.cell_means.data()[in_panels(cell, d, head_dim_)] = static_cast<float>(mean);
      chunk.cell_variances.data()[in_panels(cell, d, head_dim_)] =
          static_cast<float>(between + within[d] * spread / count);
    }
  }
}

/// What remains of a chunk whose lists have their keys: means of values and covariances. list_of: of each entry from
/// `begin` on. Keys lie around the means of their lists, so that the sum of (k - m) (v - w) over a list is that of
/// (k - m) v.
void ListIndex::add_value_moments(const MicroKernels& micro, Chunk& chunk, std::span<const std::uint32_t> list_of,
                                  const EntryRows& entries, std::size_t begin, const Watch& watch) const {
  std::vector<double> sums(chunk.lists * head_dim_);
  const std::vector<float> means = mean_rows(chunk);
  std::vector<float> keys(kBlock * head_dim_), values(kBlock * head_dim_);
  for (std::size_t first = 0; first < list_of.size(); first += kBlock) {
    watch(0);
    const std::size_t count = std::min(kBlock, list_of.size() - first);
    entries.read_keys(begin + first, begin + first + count, keys.data());
    entries.read_values(begin + first, begin + first + count, values.data());
    for (std::size_t i = 0; i < count; ++i) {
      double* const sum = sums.data() + list_of[first + i] * head_dim_;
      const float* const mean = means.data() + list_of[first + i] * head_dim_;
      for (std::size_t d = 0; d < head_dim_; ++d) {
        keys[i * head_dim_ + d] -= mean[d];
        sum[d] += static_cast<double>(values[i * head_dim_ + d]);
      }
    }
    const View<const float, 2> k(keys.data(), {count, head_dim_}), v(values.data(), {count, head_dim_});
    add_covariances(micro, chunk, k, v);
    chunk.count += count;
  }
  for (std::size_t list = 0; list < chunk.lists; ++list) {
    const auto count = static_cast<double>(std::max(chunk.of[list].keys.count, std::size_t{1}));
    for (std::size_t d = 0; d < head_dim_; ++d) {
      chunk.value_means.data()[in_value_panels(list, d, chunk.lists)] =
          static_cast<float>(sums[list * head_dim_ + d] / count);
    }
  }
}

std::unique_ptr<ListIndex> ListIndex::whole(const ListSettings& settings, std::size_t head_dim,
                                            const MicroKernels& micro, const EntryRows& entries, const Watch& watch) {
  auto index = std::make_unique<ListIndex>(settings, head_dim);
  if (entries.size() == 0) return index;
  index->chunks_.push_back(index->merged(micro, entries, 0, entries.size(), 1, watch));
  index->size_ = entries.size();
  index->update_views(0);
  return index;
}

}  // namespace memlane
