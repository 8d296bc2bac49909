#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/cpu/best_lists.h"
#include "kernels/cpu/key_tiles.h"
#include "kernels/cpu/list_catalogue.h"
#include "kernels/cpu/list_choice.h"
#include "kernels/cpu/quantised_layout.h"
#include "kernels/cpu/tile_kernels.h"
#include "kernels/key_lists.h"

namespace memlane::list_search {

// Query rows that share the means they are compared with and the keys that they scan: as many as fit into kRowBytes of
// weights of lists, within bounds.
inline constexpr std::size_t kLeastRows = 16, kMostRows = 128, kRowBytes = std::size_t{4} << 20;
inline constexpr std::size_t kScanned = 256;  // keys scored at once
// Lists that a row scans before it asks which others may hold a key that is better than those found. Asking again while
// these are scanned saves half of the keys among 16 million and loses some that matter (docs/indexes.md).
inline constexpr std::size_t kFirstLists = 128;
/// The most that the spread of a list's keys may add to the logarithm of its weight: far from its mean a list is not
/// normally distributed.
inline constexpr float kMostSpread = 4;

struct Candidate {
  float score;
  std::uint32_t entry;
  std::uint32_t chosen;  // list it was found in
  float scanned_score;
};

/// A list that a row scans, and what it found there.
struct Chosen {
  std::uint32_t place;  // in the catalogue
  std::uint32_t chunk;  // of the kv head
  std::uint32_t list;   // of the chunk
  std::uint32_t first;  // number of its first key among those that the row scans
  float max = kNothing;
  float weight = 0;  // sum of exp(scale * score - max)
};

/// One item's rows and a worker's space for them.
class RowSearch {
 public:
  RowSearch(CpuExec& exec, std::size_t worker, const QueryRows& rows, const Catalogue& catalogue,
            const ListSearch& search, std::size_t candidates, std::size_t k)
      : micro_(exec.micro()),
        rows_(rows),
        catalogue_(catalogue),
        search_(search),
        choice_(micro_, catalogue, search),
        k_(k),
        scans_all_(search.probes >= catalogue.present) {
    const auto take = [&](ScratchLayout& layout) { return lay_out(layout, candidates); };
    ScratchLayout measure(nullptr);
    take(measure);
    ScratchLayout layout(exec.worker_scratch(worker, measure.bytes()));
    best_.emplace_back(take(layout));
  }

  void run(View<const float, 3> queries, View<const EntryBlock, 2> blocks, std::span<const std::int64_t> block_begins,
           const QueryRows::Item& item, View<std::int64_t, 3> ids, View<float, 3> scores,
           const AttentionPartial* tail) {
    count_ = item.tokens * rows_.group;
    gather_queries(queries, rows_, item, 1.0F, queries_);
    for (std::size_t row = 0; row < count_; ++row) {
      micro_.quantised->quantise_row(queries_ + row * rows_.head_dim, rows_.head_dim, quantised_ + row * filled_dim(),
                                     kQuantStep, row_scales_ + row * groups(), row_sums_ + row * groups());
    }
    const bool expects = tail != nullptr || search_.mass < 1 || !scans_all_;
    if (expects) expect(tail != nullptr, tail != nullptr || search_.mass < 1);
    best_[0].clear(count_);
    chosen_.assign(count_, {});
    scanned_lists_.assign(count_, 0);
    if (scans_all_) {
      choose_all();
      scan_chosen(tail != nullptr);
    } else {
      begin_choice();
      for (const std::size_t most : {kFirstLists, catalogue_.width()}) {
        if (choose_next(most)) scan_chosen(tail != nullptr);
      }
    }
    for (std::size_t row = 0; row < count_; ++row) {
      const std::size_t flat = rows_.flat_index(item, row);
      finish_row(row, blocks, block_begins, item.kv_head, ids.data() + flat * k_, scores.data() + flat * k_, tail,
                 flat);
    }
  }

 private:
  /// A list that a row scans.
  struct Scan {
    Chosen* of = nullptr;
    std::uint32_t row = 0;
  };
  std::size_t filled_dim() const { return filled_k(rows_.head_dim); }
  std::size_t groups() const { return group_count(rows_.head_dim); }
  bool has_tiles() const { return micro_.quantised->gemm_tiles != nullptr; }

  BestLists lay_out(ScratchLayout& layout, std::size_t candidates) {
    const std::size_t rows = rows_.max_rows(), dim = rows_.head_dim;
    candidates_ = candidates;
    queries_ = layout.take<float>(rows * dim);
    scaled_ = layout.take<float>(rows * dim);
    products_ = layout.take<float>(rows * filled(dim));
    spreads_ = layout.take<float>(rows);
    shifts_ = layout.take<float>(rows * catalogue_.chunks.size() * filled(dim));
    quantised_ = layout.take<std::int8_t>(rows * filled_dim());
    row_scales_ = layout.take<float>(rows * groups());
    row_sums_ = layout.take<std::int32_t>(rows * groups());
    gathered_ = layout.take<std::int8_t>(filled(rows) * filled_dim());  // tiles touch whole ones
    gathered_scales_ = layout.take<float>(rows * groups());
    gathered_sums_ = layout.take<std::int32_t>(rows * groups());
    of_lists_ = layout.take<float>(rows * kPanelEntries);
    expected_ = layout.take<float>(rows * catalogue_.width());
    reach_ = layout.take<float>(rows * catalogue_.width());
    choice_.lay_out(layout);
    places_ = layout.take<std::uint32_t>(filled(candidates));
    order_ = layout.take<std::int32_t>(filled(candidates));
    scanned_ = layout.take<float>(rows * kScanned);
    halves_ = layout.take<float>(filled(dim));
    sum_ = layout.take<float>(filled(dim));
    found_ids_ = layout.take<std::int64_t>(candidates);
    found_scores_ = layout.take<float>(filled(candidates));
    return {layout, candidates, rows};
  }

  /// The greatest score that each row's lists are expected to have and, if asked for, the logarithms of their weights.
  void expect(bool shifts, bool weights) {
    const std::size_t dim = rows_.head_dim, width = catalogue_.width();
    for (std::size_t i = 0; i < count_ * dim; ++i) scaled_[i] = queries_[i] * search_.scale;
    for (std::size_t c = 0; c < catalogue_.chunks.size(); ++c) {
      const ListChunk& chunk = catalogue_.chunks[c];
      multiply(chunk.key_covariance, products_, filled(dim));
      for (std::size_t row = 0; row < count_; ++row) {
        spreads_[row] = 0.5F * dot(scaled_ + row * dim, products_ + row * filled(dim));
      }
      if (shifts) multiply(chunk.value_covariance, shifts_ + c * filled(dim), catalogue_.chunks.size() * filled(dim));
      for (std::size_t first = 0; first < chunk.lists; first += kPanelEntries) {
        const std::size_t place = catalogue_.begins[c] + first;
        micro_.gemm_f32(count_, dim, scaled_, dim, chunk.means + first * dim, of_lists_, kPanelEntries, false);
        for (std::size_t row = 0; row < count_; ++row) {
          const float* means = of_lists_ + row * kPanelEntries;
          const float root = std::sqrt(std::max(spreads_[row], 0.0F));
          float* reach = reach_ + row * width + place;
          for (std::size_t i = 0; i < kPanelEntries; ++i) {
            reach[i] =
                chunk.log_counts[first + i] == kNothing ? kNothing : means[i] + root * catalogue_.reaches[place + i];
          }
          float* expected = expected_ + row * width + place;
          for (std::size_t i = 0; i < kPanelEntries && weights; ++i) {
            expected[i] = means[i] + chunk.log_counts[first + i] +
                          std::min(spreads_[row] * chunk.spreads[first + i], kMostSpread);
          }
        }
      }
    }
    if (search_.count != nullptr) search_.count->lists += count_ * catalogue_.present;
  }

  /// out[rows, head_dim] = scaled queries times a matrix in panels.
  void multiply(const float* matrix, float* out, std::size_t stride) {
    const std::size_t dim = rows_.head_dim;
    for (std::size_t d = 0; d < dim; d += kPanelEntries) {
      micro_.gemm_f32(count_, dim, scaled_, dim, matrix + d * dim, out + d, stride, false);
    }
  }
  float dot(const float* a, const float* b) const { return std::inner_product(a, a + rows_.head_dim, b, 0.0F); }

  void add_chosen(std::size_t row, std::size_t place) {
    const std::size_t chunk = catalogue_.chunk_of(place);
    const std::size_t list = place - catalogue_.begins[chunk];
    if (list >= catalogue_.chunks[chunk].lists) return;
    std::uint32_t first = 0;
    if (!chosen_[row].empty()) {
      const Chosen& last = chosen_[row].back();
      first = last.first + static_cast<std::uint32_t>(catalogue_.chunks[last.chunk].list[last.list].count);
    }
    chosen_[row].push_back({.place = static_cast<std::uint32_t>(place),
                            .chunk = static_cast<std::uint32_t>(chunk),
                            .list = static_cast<std::uint32_t>(list),
                            .first = first});
  }

  void choose_all() {
    for (std::size_t row = 0; row < count_; ++row) {
      chosen_[row].reserve(catalogue_.present);
      for (std::size_t c = 0; c < catalogue_.chunks.size(); ++c) {
        for (std::size_t list = 0; list < catalogue_.chunks[c].lists; ++list) {
          add_chosen(row, catalogue_.begins[c] + list);
        }
      }
    }
  }

  void begin_choice() {
    const std::size_t width = catalogue_.width();
    choice_.clear(count_);
    for (std::size_t row = 0; row < count_; ++row) choice_.begin(row, reach_ + row * width, expected_ + row * width);
  }

  /// Chooses for every row up to `most` lists that may hold a better key than those found; whether there was any.
  bool choose_next(std::size_t most) {
    bool any = false;
    for (std::size_t row = 0; row < count_; ++row) {
      const float found = best_[0].least(micro_, row) * search_.scale;
      choice_.next(row, most, found, [&](std::size_t place) { add_chosen(row, place); });
      any = any || !unscanned(row).empty();
    }
    return any;
  }

  /// Scans every list chosen since the last scan once, for all rows that chose it. In the order of their places, in
  /// which each row has its lists: so what a row finds does not depend on which rows come with it.
  void scan_chosen(bool weighs) {
    // Sorted by counting: where the scans of each place end.
    ends_.assign(catalogue_.width() + 1, 0);
    for (std::size_t row = 0; row < count_; ++row) {
      for (const Chosen& list : unscanned(row)) ++ends_[list.place + 1];
    }
    std::partial_sum(ends_.begin(), ends_.end(), ends_.begin());
    scans_.resize(ends_.back());
    for (std::size_t row = 0; row < count_; ++row) {
      for (Chosen& list : unscanned(row)) scans_[ends_[list.place]++] = {&list, static_cast<std::uint32_t>(row)};
      scanned_lists_[row] = chosen_[row].size();
    }
    if (has_tiles()) micro_.tiles->shape();
    for (std::size_t begin = 0, end = 0; begin < scans_.size(); begin = end) {
      end = ends_[scans_[begin].of->place];
      scan(std::span(scans_).subspan(begin, end - begin), weighs);
    }
    if (has_tiles()) micro_.tiles->release();
  }

  std::span<Chosen> unscanned(std::size_t row) { return std::span(chosen_[row]).subspan(scanned_lists_[row]); }

  /// Scores the keys of one list for the rows that chose it.
  void scan(std::span<const Scan> rows, bool weighs) {
    const KeyList& list = catalogue_.chunks[rows.front().of->chunk].list[rows.front().of->list];
    const std::size_t bytes = key_list_panel_bytes(rows_.head_dim);
    const QuantisedKernels& kernels = *micro_.quantised;
    const bool tiled = has_tiles() && rows.size() >= kLeastTileRows;
    const QuantisedRows a = together(rows, tiled);
    for (std::size_t begin = 0; begin < list.count; begin += kScanned) {
      const std::size_t count = std::min(kScanned, list.count - begin);
      for (std::size_t i = 0; i < count; i += kPanelEntries) {
        const auto gemm = tiled ? kernels.gemm_tiles : kernels.gemm;
        gemm(rows.size(), filled_dim(), a, list.panels + (begin + i) / kPanelEntries * bytes, scanned_ + i, kScanned,
             false);
      }
      for (std::size_t r = 0; r < rows.size(); ++r) {
        float* scores = scanned_ + r * kScanned;
        best_[0].offer(micro_, rows[r].row, scores, count, rows[r].of->first + static_cast<std::uint32_t>(begin));
        if (weighs) weigh(scores, count, *rows[r].of);
      }
    }
    if (search_.count != nullptr) search_.count->keys += rows.size() * list.count;
  }

  /// Some rows' queries, one behind the other or in tiles: where they lie if they lie so, else copied.
  QuantisedRows together(std::span<const Scan> rows, bool tiled) {
    const std::size_t first = rows.front().row;
    if (!tiled && rows.back().row - first + 1 == rows.size()) {
      return {reinterpret_cast<const std::uint32_t*>(quantised_ + first * filled_dim()), filled_dim() / 4,
              row_scales_ + first * groups(), row_sums_ + first * groups(), groups()};
    }
    const std::size_t tile_rows = tiled ? 16 : 1;  // whose steps of 64 elements lie together
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const std::size_t row = rows[r].row;
      std::int8_t* to = gathered_ + r / tile_rows * tile_rows * filled_dim() + r % tile_rows * kQuantStep;
      for (std::size_t step = 0; step < filled_dim(); step += kQuantStep) {
        std::copy_n(quantised_ + row * filled_dim() + step, kQuantStep, to + step * tile_rows);
      }
      std::copy_n(row_scales_ + row * groups(), groups(), gathered_scales_ + r * groups());
      std::copy_n(row_sums_ + row * groups(), groups(), gathered_sums_ + r * groups());
    }
    return {reinterpret_cast<const std::uint32_t*>(gathered_), tile_rows * filled_dim() / 4, gathered_scales_,
            gathered_sums_, groups()};
  }

  void weigh(float* scores, std::size_t count, Chosen& list) {
    std::fill(scores + count, scores + filled(count), kNothing);
    micro_.scale_row(scores, filled(count), search_.scale);
    const float max = std::max(list.max, micro_.row_max(scores, filled(count)));
    const float before = list.weight == 0 ? 0.0F : list.weight * std::exp(list.max - max);
    list.weight = before + micro_.exp_row(scores, filled(count), max);
    list.max = max;
  }

  /// What the scan found, in order, scored as it is stored.
  void take_candidates(std::size_t row, View<const EntryBlock, 2> blocks, std::span<const std::int64_t> block_begins,
                       std::size_t kv_head) {
    const std::vector<Chosen>& lists = chosen_[row];
    best_[0].write(micro_, row, found_ids_, found_scores_);
    kept_.clear();
    std::size_t at = 0;
    for (std::size_t i = 0; i < candidates_ && found_ids_[i] >= 0; ++i) {
      const auto number = static_cast<std::uint32_t>(found_ids_[i]);
      while (at + 1 < lists.size() && lists[at + 1].first <= number) ++at;
      const ListChunk& chunk = catalogue_.chunks[lists[at].chunk];
      const std::uint32_t entry = chunk.first_entry + chunk.list[lists[at].list].entries[number - lists[at].first];
      kept_.push_back({0, entry, static_cast<std::uint32_t>(at), found_scores_[i]});
    }
    std::sort(kept_.begin(), kept_.end(), [](const Candidate& a, const Candidate& b) { return a.entry < b.entry; });
    const float* query = queries_ + row * rows_.head_dim;
    const std::size_t pairs = padded_head_dim(rows_.head_dim, DType::bf16) / 2;
    for (std::size_t d = 0; d < rows_.head_dim; ++d) halves_[d % 2 * pairs + d / 2] = query[d];
    if (rows_.head_dim % 2 == 1) halves_[2 * pairs - 1] = 0;
    std::size_t block = 0;
    for (Candidate& candidate : kept_) {
      if (block_begins[block + 1] <= candidate.entry) {
        block = static_cast<std::size_t>(std::upper_bound(block_begins.begin(), block_begins.end(), candidate.entry) -
                                         block_begins.begin()) -
                1;
      }
      MEMLANE_EXPECTS(block + 1 < block_begins.size());
      candidate.score = stored_score(query, blocks.data()[kv_head * blocks.extent(1) + block],
                                     candidate.entry - static_cast<std::size_t>(block_begins[block]));
    }
  }

  float stored_score(const float* query, const EntryBlock& block, std::size_t entry) const {
    if (block.dtype == DType::bf16) {
      const std::size_t pairs = padded_head_dim(rows_.head_dim, DType::bf16) / 2;
      const auto* units = static_cast<const std::uint32_t*>(block.keys);
      return micro_.score_key_bf16(
          halves_, units + entry / kPanelEntries * pairs * kPanelEntries + entry % kPanelEntries, pairs);
    }
    return with_type(block.dtype, [&](auto type) {
      using T = decltype(type);
      constexpr std::size_t kUnit = 4 / sizeof(T);
      const T* key = static_cast<const T*>(block.keys) + key_offset(entry, 0, rows_.head_dim, block.dtype);
      float score = 0;
      for (std::size_t d = 0; d < rows_.head_dim; ++d) {
        score += query[d] * to_float(key[d / kUnit * kUnit * kPanelEntries + d % kUnit]);
      }
      return score;
    });
  }

  /// Cuts kept_ to the k best, in order; of equal scores those with smaller entries.
  void keep_best() {
    if (kept_.size() <= k_) return;
    for (std::size_t i = 0; i < kept_.size(); ++i) {
      found_scores_[i] = kept_[i].score;
      places_[i] = static_cast<std::uint32_t>(i);
    }
    micro_.keep_best(k_, kept_.size(), found_scores_, places_, order_);
    for (std::size_t i = 0; i < k_; ++i) kept_[i] = kept_[places_[i]];
    kept_.resize(k_);
  }

  void finish_row(std::size_t row, View<const EntryBlock, 2> blocks, std::span<const std::int64_t> block_begins,
                  std::size_t kv_head, std::int64_t* ids, float* scores, const AttentionPartial* tail,
                  std::size_t flat) {
    take_candidates(row, blocks, block_begins, kv_head);
    keep_best();
    if (tail != nullptr) add_tail(row, *tail, flat);
    for (std::size_t i = 0; i < k_; ++i) {
      ids[i] = i < kept_.size() ? std::int64_t{kept_[i].entry} : -1;
      scores[i] = i < kept_.size() ? kept_[i].score : kNothing;
    }
  }

  /// The partial of everything but kept_, which is cut where it holds enough.
  void add_tail(std::size_t row, const AttentionPartial& tail, std::size_t flat);
  float add_rests(std::size_t row, float max);
  void add_shift(std::size_t row, std::size_t chunk, float weight);
  void keep_enough(float max, double total);

  const MicroKernels& micro_;
  const QueryRows& rows_;
  const Catalogue& catalogue_;
  const ListSearch& search_;
  ListChoice choice_;
  std::size_t k_, candidates_ = 0, count_ = 0;
  bool scans_all_;
  std::vector<BestLists> best_;  // one
  float *queries_, *scaled_, *row_scales_, *products_, *spreads_, *shifts_, *of_lists_, *expected_, *reach_, *scanned_,
      *halves_, *sum_, *found_scores_, *gathered_scales_;
  std::int8_t *quantised_, *gathered_;
  std::int32_t *row_sums_, *gathered_sums_, *order_;
  std::uint32_t* places_;
  std::int64_t* found_ids_;
  std::vector<std::vector<Chosen>> chosen_;  // [rows]: by place, those scanned at once
  std::vector<std::size_t> scanned_lists_;   // [rows]: of chosen_
  std::vector<Scan> scans_;
  std::vector<std::size_t> ends_;  // [catalogue's width + 1]
  std::vector<Candidate> kept_;
  std::vector<float> rests_;
};

}  // namespace memlane::list_search
