#include "memory/list_index.h"

#include <algorithm>
#include <cmath>

#include "kernels/clusters.h"
#include "kernels/error.h"
#include "memory/list_layout.h"

namespace memlane {

namespace {

constexpr std::size_t kTurned = 64;  // keys and values of which products are taken at a time

/// Which lists there are of a chunk that begins with so many keys.
std::size_t lists_of_chunk(const ListSettings& settings, std::size_t keys) {
  return std::clamp<std::size_t>(keys / kLeastKeys, 1, settings.lists);
}

}  // namespace

ListIndex::Chunk ListIndex::empty_chunk(std::size_t lists) const {
  Chunk chunk;
  chunk.lists = lists;
  chunk.capacity = std::max(settings_.chunk / settings_.lists * lists, std::size_t{1});
  chunk.of.resize(lists);
  chunk.views.resize(lists);
  const std::size_t filled = panels_for(lists) * kPanelEntries;
  chunk.means = Buffer<float>::zeroed(filled * head_dim_);
  chunk.mean_codes = Buffer<std::byte>::zeroed(filled / kPanelEntries * key_list_panel_bytes(head_dim_));
  chunk.variances.resize(lists);
  chunk.spreads = Buffer<float>::zeroed(filled);
  const std::size_t matrix = panels_for(head_dim_) * kPanelEntries * head_dim_;
  chunk.key_covariance = Buffer<float>::zeroed(matrix);
  chunk.value_covariance = Buffer<float>::zeroed(matrix);
  chunk.value_means = Buffer<float>::zeroed(lists * panels_for(head_dim_) * kPanelEntries);
  chunk.log_counts = Buffer<float>(filled);
  std::fill_n(chunk.log_counts.data(), filled, kNone);
  chunk.reaches = Buffer<float>(filled);
  std::fill_n(chunk.reaches.data(), filled, kNone);
  return chunk;
}

/// Rows of keys as distances between them are taken: themselves, or by the metric in `storage`.
View<const float, 2> ListIndex::measured(View<const float, 2> rows, std::vector<float>& storage) const {
  if (metric_.empty()) return rows;
  storage.assign(rows.size(), 0);
  for (std::size_t row = 0; row < rows.extent(0); ++row) {
    float* const to = storage.data() + row * head_dim_;
    for (std::size_t d = 0; d < head_dim_; ++d) {
      const float x = rows.data()[row * head_dim_ + d];
      for (std::size_t i = 0; i < head_dim_; ++i) to[i] += x * metric_[d * head_dim_ + i];
    }
  }
  return {storage.data(), rows.extents()};
}

/// The means of the clusters of keys, [lists, head_dim].
std::vector<float> ListIndex::cluster(const MicroKernels& micro, View<const float, 2> keys, std::size_t lists) const {
  if (metric_.empty()) return k_means(micro, keys, lists);
  std::vector<float> storage;
  const View<const float, 2> all = measured(keys, storage);
  const std::vector<float> centres = k_means(micro, all, lists);
  const std::vector<std::uint32_t> nearest = ClusterMeans({centres.data(), {lists, head_dim_}}).nearest(micro, all);
  std::vector<float> means(lists * head_dim_), counts(lists);
  for (std::size_t i = 0; i < nearest.size(); ++i) {
    counts[nearest[i]] += 1;
    for (std::size_t d = 0; d < head_dim_; ++d) means[nearest[i] * head_dim_ + d] += keys.data()[i * head_dim_ + d];
  }
  for (std::size_t list = 0; list < lists; ++list) {
    for (std::size_t d = 0; d < head_dim_; ++d) means[list * head_dim_ + d] /= std::max(counts[list], 1.0F);
  }
  return means;
}

/// An empty chunk whose means are those of the clusters of its first keys.
ListIndex::Chunk ListIndex::new_chunk(const MicroKernels& micro, View<const float, 2> keys) const {
  const std::size_t n = keys.extent(0);
  Chunk chunk = empty_chunk(lists_of_chunk(settings_, n));
  if (chunk.lists == 1) return chunk;
  const std::size_t used = std::min(n, kTrainingKeys * chunk.lists);
  Buffer<float> sample(used * head_dim_);
  for (std::size_t i = 0; i < used; ++i) {
    std::copy_n(keys.data() + i * n / used * head_dim_, head_dim_, sample.data() + i * head_dim_);
  }
  const std::vector<float> means = cluster(micro, sample.view<2>({used, head_dim_}), chunk.lists);
  for (std::size_t list = 0; list < chunk.lists; ++list) {
    for (std::size_t d = 0; d < head_dim_; ++d) {
      chunk.means.data()[in_panels(list, d, head_dim_)] = means[list * head_dim_ + d];
    }
  }
  return chunk;
}

std::vector<float> ListIndex::mean_rows(const Chunk& chunk) const {
  std::vector<float> rows(chunk.lists * head_dim_);
  for (std::size_t list = 0; list < chunk.lists; ++list) {
    for (std::size_t d = 0; d < head_dim_; ++d) {
      rows[list * head_dim_ + d] = chunk.means.data()[in_panels(list, d, head_dim_)];
    }
  }
  return rows;
}

void ListIndex::update(const MicroKernels& micro, const EntryRows& entries, const Watch& watch) {
  MEMLANE_EXPECTS(entries.head_dim() == head_dim_ && entries.size() >= size_);
  const std::size_t n = entries.size();
  std::size_t unchanged = chunks_.empty() ? 0 : chunks_.size() - 1;
  Buffer<float> keys, values;
  while (size_ < n) {
    // A chunk's at a time: those that it begins with, or takes.
    const bool begins = chunks_.empty() || chunks_.back().count >= chunks_.back().capacity;
    const std::size_t left = begins ? settings_.chunk : chunks_.back().capacity - chunks_.back().count;
    const std::size_t count = std::min(n - size_, left);
    keys.reserve_discarding(count * head_dim_);
    values.reserve_discarding(count * head_dim_);
    entries.read_keys(size_, size_ + count, keys.data());
    entries.read_values(size_, size_ + count, values.data());
    const auto rows = std::as_const(keys).view<2>({count, head_dim_});
    if (begins) chunks_.push_back(new_chunk(micro, rows));
    Chunk& chunk = chunks_.back();
    const std::size_t taken = std::min(count, chunk.capacity - chunk.count);
    append(micro, chunk, rows.slice(0, taken), std::as_const(values).view<2>({count, head_dim_}).slice(0, taken));
    watch(taken);
    if (const auto [first, level] = merge(); first < chunks_.size()) {
      std::size_t begin = size_;
      for (std::size_t i = first; i < chunks_.size(); ++i) begin -= chunks_[i].count;
      // Its entries are done when they come, not again when they are clustered together.
      Chunk whole = merged(micro, entries, begin, size_, level, [&](std::size_t) { watch(0); });
      chunks_.resize(first + 1);
      chunks_.back() = std::move(whole);
      unchanged = std::min(unchanged, first);
    }
  }
  update_views(unchanged);
}

/// Adds each key to the list whose mean is nearest. Means move with what they gain; keys stay where they are.
void ListIndex::append(const MicroKernels& micro, Chunk& chunk, View<const float, 2> keys,
                       View<const float, 2> values) {
  const std::vector<float> means = mean_rows(chunk);
  std::vector<float> measured_means, measured_keys;
  const ClusterMeans clusters(measured({means.data(), {chunk.lists, head_dim_}}, measured_means));
  const std::vector<std::uint32_t> nearest = clusters.nearest(micro, measured(keys, measured_keys));
  std::vector<std::vector<std::uint32_t>> rows(chunk.lists);
  for (std::size_t i = 0; i < nearest.size(); ++i) rows[nearest[i]].push_back(static_cast<std::uint32_t>(i));
  for (std::size_t list = 0; list < chunk.lists; ++list) {
    if (rows[list].empty()) continue;
    add_moments(micro, chunk, list, rows[list], keys, values);
    add_to_list(micro, chunk, list, rows[list], keys);
  }
  std::vector<float> keys_apart(keys.size()), values_apart(keys.size());
  for (std::size_t i = 0; i < nearest.size(); ++i) {
    for (std::size_t d = 0; d < head_dim_; ++d) {
      const std::size_t at = i * head_dim_ + d;
      keys_apart[at] = keys.data()[at] - chunk.means.data()[in_panels(nearest[i], d, head_dim_)];
      values_apart[at] = values.data()[at] - chunk.value_means.data()[in_value_panels(nearest[i], d, chunk.lists)];
    }
  }
  add_covariances(micro, chunk, {keys_apart.data(), keys.extents()}, {values_apart.data(), keys.extents()});
  chunk.count += nearest.size();
  size_ += nearest.size();
  update_spreads(chunk);
}

/// Adds to the covariances what keys and values are apart from the means of their lists. keys, values: [n, head_dim].
void ListIndex::add_covariances(const MicroKernels& micro, Chunk& chunk, View<const float, 2> keys,
                                View<const float, 2> values) const {
  const std::size_t n = keys.extent(0), panels = panels_for(head_dim_), of_panel = head_dim_ * kPanelEntries;
  Buffer<float>* const covariances[] = {&chunk.key_covariance, &chunk.value_covariance};
  const View<const float, 2> rows[] = {keys, values};
  const auto before = static_cast<float>(chunk.count), after = static_cast<float>(chunk.count + n);
  for (Buffer<float>* covariance : covariances) {
    for (float& x : covariance->span()) x *= before;
  }
  // So few at a time that they stay in the first-level cache, turned.
  constexpr std::size_t kStride = kTurned + 16;  // no power of two
  Buffer<float> across(head_dim_ * kStride);
  auto panelled = Buffer<float>::zeroed(panels * kTurned * kPanelEntries);
  for (std::size_t begin = 0; begin < n; begin += kTurned) {
    const std::size_t count = std::min(kTurned, n - begin);
    for (std::size_t i = 0; i < count; ++i) {
      const float* const key = keys.data() + (begin + i) * head_dim_;
      for (std::size_t d = 0; d < head_dim_; ++d) across.data()[d * kStride + i] = key[d];
    }
    for (std::size_t of = 0; of < 2; ++of) {
      for (std::size_t i = 0; i < count; ++i) {
        const float* const row = rows[of].data() + (begin + i) * head_dim_;
        for (std::size_t d = 0; d < head_dim_; ++d) panelled.data()[in_value_panels(i, d, kTurned)] = row[d];
      }
      for (std::size_t panel = 0; panel < panels; ++panel) {
        micro.gemm_f32(head_dim_, count, across.data(), kStride, panelled.data() + panel * kTurned * kPanelEntries,
                       covariances[of]->data() + panel * of_panel, kPanelEntries, true);
      }
    }
  }
  for (Buffer<float>* covariance : covariances) {
    for (float& x : covariance->span()) x /= after;
  }
}

void ListIndex::update_spreads(Chunk& chunk) {
  double sum = 0;
  for (std::size_t list = 0; list < chunk.lists; ++list) {
    sum += static_cast<double>(chunk.variances[list]) * static_cast<double>(chunk.of[list].keys.count);
  }
  const double mean = sum / static_cast<double>(chunk.count);
  for (std::size_t list = 0; list < chunk.lists; ++list) {
    const float spread = mean > 0 ? static_cast<float>(static_cast<double>(chunk.variances[list]) / mean) : 0;
    const float log_count = chunk.log_counts.data()[list];
    chunk.spreads.data()[list] = spread;
    chunk.reaches.data()[list] =
        log_count == kNone ? kNone : 2 * std::sqrt(std::max(std::max(log_count, 0.0F) * spread, 0.0F));
  }
}

/// Makes a list's keys its own.
void ListIndex::take(List& list) const {
  if (list.keys.count == 0 || !list.entries.empty()) return;
  const std::size_t bytes = panels_for(list.keys.count) * key_list_panel_bytes(head_dim_);
  list.panels.assign(list.keys.panels, list.keys.panels + bytes);
  list.entries.assign(list.keys.entries, list.keys.entries + list.keys.count);
}

void ListIndex::add_to_list(const MicroKernels& micro, Chunk& chunk, std::size_t at,
                            std::span<const std::uint32_t> rows, View<const float, 2> keys) {
  List& list = chunk.of[at];
  take(list);
  const std::size_t before = list.entries.size();
  list.panels.resize(panels_for(before + rows.size()) * key_list_panel_bytes(head_dim_));
  for (const std::uint32_t row : rows) {
    write_list_key(micro, list.panels.data(), list.entries.size(), keys.data() + row * head_dim_, head_dim_);
    list.entries.push_back(static_cast<std::uint32_t>(size_ + row));
  }
  list.keys = {list.panels.data(), list.entries.data(), list.entries.size()};
}

/// Of a list that has `of[at].keys.count` keys before these.
void ListIndex::add_moments(const MicroKernels& micro, Chunk& chunk, std::size_t at,
                            std::span<const std::uint32_t> rows, View<const float, 2> keys,
                            View<const float, 2> values) const {
  const std::size_t before = chunk.of[at].keys.count;
  std::vector<float> means(head_dim_);
  const auto old_count = static_cast<double>(before), more = static_cast<double>(rows.size());
  const double count = old_count + more;
  double spread = static_cast<double>(chunk.variances[at]) * old_count;
  for (std::size_t d = 0; d < head_dim_; ++d) {
    double sum = 0, square = 0, value_sum = 0;
    for (const std::uint32_t row : rows) {
      const auto x = static_cast<double>(keys.data()[row * head_dim_ + d]);
      sum += x;
      square += x * x;
      value_sum += static_cast<double>(values.data()[row * head_dim_ + d]);
    }
    // Moments of two sets together (Chan, Golub and LeVeque 1983).
    float& mean = chunk.means.data()[in_panels(at, d, head_dim_)];
    float& value_mean = chunk.value_means.data()[in_value_panels(at, d, chunk.lists)];
    const double old_mean = before > 0 ? static_cast<double>(mean) : 0, new_mean = sum / more;
    const double apart = new_mean - old_mean;
    spread += std::max(square - sum * new_mean, 0.0) + apart * apart * old_count * more / count;
    mean = means[d] = static_cast<float>(old_mean + apart * more / count);
    value_mean = static_cast<float>((static_cast<double>(value_mean) * old_count + value_sum) / count);
  }
  chunk.variances[at] = static_cast<float>(spread / count);
  chunk.log_counts.data()[at] = static_cast<float>(std::log(count));
  write_list_key(micro, chunk.mean_codes.data(), at, means.data(), head_dim_);
}

/// Of the chunks from `first` on.
void ListIndex::update_views(std::size_t first) {
  views_.resize(first);
  for (std::size_t c = first; c < chunks_.size(); ++c) {
    Chunk& chunk = chunks_[c];
    for (std::size_t list = 0; list < chunk.lists; ++list) chunk.views[list] = chunk.of[list].keys;
    views_.push_back({.list = chunk.views.data(),
                      .lists = chunk.lists,
                      .cells = {.count = chunk.cells(),
                                .begins = chunk.cell_begins.data(),
                                .means = chunk.cell_means.data(),
                                .variances = chunk.cell_variances.data(),
                                .log_counts = chunk.cell_log_counts.data()},
                      .mean_codes = chunk.mean_codes.data(),
                      .means = chunk.means.data(),
                      .spreads = chunk.spreads.data(),
                      .reaches = chunk.reaches.data(),
                      .log_counts = chunk.log_counts.data(),
                      .value_means = chunk.value_means.data(),
                      .key_covariance = chunk.key_covariance.data(),
                      .value_covariance = chunk.value_covariance.data(),
                      .first_entry = 0});
  }
}

void ListIndex::search(View<const float, 2>, View<std::int64_t, 2>) const {
  throw std::logic_error("lists are searched by search_lists()");
}

std::size_t ListIndex::bytes() const {
  std::size_t sum = 0;
  for (const Chunk& chunk : chunks_) {
    sum += chunk.mean_codes.bytes() + chunk.means.bytes() + chunk.spreads.bytes() + chunk.reaches.bytes() +
           chunk.value_means.bytes() + chunk.log_counts.bytes() + chunk.key_covariance.bytes() +
           chunk.value_covariance.bytes() + chunk.cell_begins.size() * sizeof(std::uint32_t) +
           chunk.cell_means.bytes() + chunk.cell_variances.bytes() + chunk.cell_log_counts.bytes();
    for (const List& list : chunk.of) {
      sum += panels_for(list.keys.count) * key_list_panel_bytes(head_dim_) + list.keys.count * sizeof(std::uint32_t) +
             sizeof(List) + sizeof(KeyList);
    }
  }
  return sum;
}

ListIndex::Extent ListIndex::extent_of(const ListSettings& settings, std::size_t entries) {
  Extent extent;
  const std::size_t partial = entries % settings.chunk;
  if (partial > 0) extent = {1, lists_of_chunk(settings, partial)};
  std::size_t chunks = entries / settings.chunk;
  if (settings.lists == 1) return {extent.chunks + chunks, extent.lists + chunks};
  for (std::size_t size = settings.chunk, level = 0; chunks > 0; size *= kMerged, chunks /= kMerged, ++level) {
    const std::size_t lists = level == 0 ? settings.lists : merged_lists(settings, size);
    extent.chunks += chunks % kMerged;
    extent.lists += chunks % kMerged * lists;
  }
  return extent;
}

std::vector<std::pair<std::size_t, std::size_t>> ListIndex::merged_entries(const ListSettings& settings,
                                                                           std::size_t before, std::size_t after) {
  std::vector<std::pair<std::size_t, std::size_t>> merged;
  if (settings.lists == 1) return merged;
  for (std::size_t size = settings.chunk * kMerged; size <= after; size *= kMerged) {
    // Where four of them are full they are clustered as one of the next size at once.
    const auto times = [&](std::size_t entries) { return entries / size - entries / (size * kMerged); };
    merged.emplace_back(size, (times(after) - times(before)) * size);
  }
  return merged;
}

std::size_t ListIndex::lists_at_most(const ListSettings& settings, std::size_t entries, std::size_t documents) {
  const std::size_t merged = merged_lists(settings, entries);  // and some: cells have one at least, and round theirs
  const std::size_t lists = std::max(merged + merged / 8, entries / settings.chunk * settings.lists);
  return std::min(entries, lists + documents * settings.lists);
}

std::size_t ListIndex::bytes_for(const ListSettings& settings, std::size_t head_dim, std::size_t entries) {
  // Half a panel of each list is empty, and its head and ids are padded.
  const std::size_t panels = (entries + extent_of(settings, entries).lists * kPanelEntries / 2) / kPanelEntries + 1;
  return panels * key_list_panel_bytes(head_dim) + entries * sizeof(std::uint32_t) + 128 +
         own_bytes_for(settings, head_dim, entries);
}

std::size_t ListIndex::own_bytes_for(const ListSettings& settings, std::size_t head_dim, std::size_t entries) {
  const Extent extent = extent_of(settings, entries);
  const std::size_t codes = key_list_panel_bytes(head_dim) / kPanelEntries;
  const double cells = std::sqrt(static_cast<double>(extent.lists * extent.chunks));  // about: of equal chunks
  return extent.lists * (2 * panels_for(head_dim) * kPanelEntries * sizeof(float) + codes + 128) +
         static_cast<std::size_t>(cells) * 2 * (head_dim + 1) * sizeof(float) +
         extent.chunks * (2 * panels_for(head_dim) * kPanelEntries * head_dim * sizeof(float) + 1024);
}

std::size_t ListIndex::adding_bytes(const ListSettings& settings, std::size_t head_dim, std::size_t key_bytes,
                                    std::size_t at_once, std::size_t in_all) {
  if (at_once == 0 || in_all == 0) return 0;
  // A chunk's keys and values at a time: of each its list, twice, what it is apart from its means, and three copies for
  // the covariances (add_covariances).
  const std::size_t columns = panels_for(head_dim) * kPanelEntries;
  const std::size_t row = (5 * head_dim + 2 * columns) * sizeof(float) + 3 * sizeof(std::uint32_t);
  std::size_t merging = 0;
  for (std::size_t size = settings.chunk * kMerged; settings.lists > 1 && size <= in_all; size *= kMerged) {
    merging = merging_bytes(settings, head_dim, key_bytes, size);
  }
  // Chunks that begin with few keys have fewer lists and entries, so that others come together. Entries that come all
  // at once are cut into full ones.
  const bool whole = settings.chunk % at_once == 0 || at_once % settings.chunk == 0 || at_once >= in_all;
  const bool fewer = !whole || at_once < std::min(in_all, settings.lists * kLeastKeys);
  if (settings.lists > 1 && fewer) merging = merging_bytes(settings, head_dim, key_bytes, in_all);
  return std::min(at_once, settings.chunk) * row + merging;
}

}  // namespace memlane
