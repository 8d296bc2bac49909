#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/cpu/best_lists.h"
#include "kernels/cpu/key_tiles.h"
#include "kernels/cpu/list_catalogue.h"
#include "kernels/cpu/list_choice.h"
#include "kernels/cpu/list_rows.h"
#include "kernels/cpu/quantised_queries.h"
#include "kernels/cpu/stored_scores.h"
#include "kernels/cpu/tile_kernels.h"
#include "kernels/key_lists.h"

namespace memlane::list_search {

inline constexpr std::size_t kScanned = 256;  // keys scored at once
// Lists that a row scans before it asks which others may hold a key that is better than those found. Asking again while
// these are scanned saves half of the keys among 16 million and loses some that matter (docs/indexes.md).
inline constexpr std::size_t kFirstLists = 128;
/// The most that the spread of a list's keys may add to the logarithm of its weight: far from its mean a list is not
/// normally distributed.
inline constexpr float kMostSpread = 4;
inline constexpr float kLeastSpread = 1e-20F;  // so that its root times -inf is -inf

/// One item's rows and a worker's space for them.
class RowSearch {
 public:
  /// estimates: whether run() is given a tail.
  RowSearch(CpuExec& exec, std::size_t worker, const QueryRows& rows, const Catalogue& catalogue,
            const ListSearch& search, std::size_t candidates, std::size_t k, bool estimates)
      : micro_(exec.micro()),
        rows_(rows),
        catalogue_(catalogue),
        search_(search),
        choice_(micro_, catalogue, search),
        k_(k),
        at_once_(estimates ? rows.max_rows()
                           : std::min(rows.max_rows(), most_at_once(catalogue, rows.head_dim, false))),
        scans_all_(search.probes >= catalogue.present),
        estimates_(estimates) {
    const auto take = [&](ScratchLayout& layout) { return lay_out(layout, candidates); };
    ScratchLayout measure(nullptr);
    take(measure);
    ScratchLayout layout(exec.worker_scratch(worker, measure.bytes()));
    take(layout);
  }

  void run(View<const float, 3> queries, View<const EntryBlock, 2> blocks, std::span<const std::int64_t> block_begins,
           const QueryRows::Item& item, View<std::int64_t, 3> ids, View<float, 3> scores,
           const AttentionPartial* tail) {
    MEMLANE_EXPECTS((tail != nullptr) == estimates_);
    count_ = item.tokens * rows_.group;
    gather_queries(queries, rows_, item, 1.0F, queries_);
    quantised_.quantise(micro_, queries_, count_);
    best_.clear(count_);
    chosen_.assign(count_, {});
    scanned_lists_.assign(count_, 0);
    choose_first();
    if (scans_all_) {
      scan_chosen();
    } else {
      for (const std::size_t most : {kFirstLists, catalogue_.width()}) {
        if (choose_next(most)) scan_chosen();
      }
    }
    take_candidates(blocks, block_begins, item.kv_head);
    for (std::size_t row = 0; row < count_; ++row) {
      const std::size_t flat = rows_.flat_index(item, row);
      finish_row(row, ids.data() + flat * k_, scores.data() + flat * k_, tail, flat);
    }
  }

 private:
  /// A list that a row scans.
  struct Scan {
    Chosen* of = nullptr;
    std::uint32_t row = 0;
  };
  bool has_tiles() const { return micro_.quantised->gemm_tiles != nullptr; }

  void lay_out(ScratchLayout& layout, std::size_t candidates) {
    const std::size_t rows = rows_.max_rows(), dim = rows_.head_dim;
    candidates_ = candidates;
    row_shift_ = static_cast<int>(std::bit_width(candidates - 1));
    MEMLANE_EXPECTS(rows <= std::size_t{1} << (32 - row_shift_));
    best_ = BestLists(layout, candidates, rows);
    stored_ = StoredScores(layout, micro_, dim, rows, rows * candidates);
    found_ = layout.take<Candidate>(estimates_ ? rows * candidates : 0);
    in_order_ = layout.take<Candidate>(rows * candidates);
    taken_ = layout.take<std::size_t>(rows);
    queries_ = layout.take<float>(rows * dim);
    scaled_ = layout.take<float>(at_once_ * dim);
    products_ = layout.take<float>(at_once_ * filled(dim));
    spreads_ = layout.take<float>(at_once_);
    shifts_ = layout.take<float>(estimates_ ? at_once_ * catalogue_.chunks.size() * filled(dim) : 0);
    quantised_ = QuantisedQueries(layout, dim, rows, at_once_);
    of_lists_ = layout.take<float>(at_once_ * kPanelEntries);
    expected_ = layout.take<float>(at_once_ * catalogue_.width());
    reach_ = layout.take<float>(at_once_ * catalogue_.width());
    choice_.lay_out(layout);
    places_ = layout.take<std::uint32_t>(filled(candidates));
    order_ = layout.take<std::int32_t>(filled(candidates));
    scanned_ = layout.take<float>(at_once_ * kScanned);
    collected_ = layout.take<FoundScores>(at_once_);
    sum_ = layout.take<float>(filled(dim));
    found_ids_ = layout.take<std::int64_t>(candidates);
    found_scores_ = layout.take<float>(filled(candidates));
  }

  /// The lists that each row may scan; the greatest score that they are expected to have and the logarithms of their
  /// weights, where those are asked for.
  void choose_first() {
    choice_.clear(count_);
    const bool weights = estimates_ || search_.mass < 1;
    for (std::size_t first = 0; first < count_; first += at_once_) {
      const std::size_t rows = std::min(at_once_, count_ - first);
      if (weights || !scans_all_) expect(first, rows, weights);
      for (std::size_t row = 0; row < rows && !scans_all_; ++row) {
        choice_.begin(first + row, reach_ + row * catalogue_.width(), expected_ + row * catalogue_.width());
      }
    }
    if (scans_all_) choose_all();
  }

  /// Of rows from `first` on; reach_ and expected_ begin with the first of them.
  void expect(std::size_t first, std::size_t rows, bool weights) {
    const std::size_t dim = rows_.head_dim, width = catalogue_.width();
    for (std::size_t i = 0; i < rows * dim; ++i) scaled_[i] = queries_[first * dim + i] * search_.scale;
    for (std::size_t c = 0; c < catalogue_.chunks.size(); ++c) {
      const ListChunk& chunk = catalogue_.chunks[c];
      multiply(rows, chunk.key_covariance, products_, filled(dim));
      for (std::size_t row = 0; row < rows; ++row) {
        spreads_[row] = 0.5F * dot(scaled_ + row * dim, products_ + row * filled(dim));
      }
      if (estimates_) {
        multiply(rows, chunk.value_covariance, shifts_ + c * filled(dim), catalogue_.chunks.size() * filled(dim));
      }
      for (std::size_t list = 0; list < chunk.lists; list += kPanelEntries) {
        const std::size_t place = catalogue_.begins[c] + list;
        micro_.gemm_f32(rows, dim, scaled_, dim, chunk.means + list * dim, of_lists_, kPanelEntries, false);
        for (std::size_t row = 0; row < rows; ++row) {
          const float* means = of_lists_ + row * kPanelEntries;
          const float root = std::sqrt(std::max(spreads_[row], kLeastSpread));
          float* reach = reach_ + row * width + place;
          const float* reaches = catalogue_.reaches.data() + place;
          for (std::size_t i = 0; i < kPanelEntries; ++i) {
            reach[i] = means[i] + root * reaches[i];
          }
          float* expected = expected_ + row * width + place;
          for (std::size_t i = 0; i < kPanelEntries && weights; ++i) {
            expected[i] =
                means[i] + chunk.log_counts[list + i] + std::min(spreads_[row] * chunk.spreads[list + i], kMostSpread);
          }
        }
      }
    }
    if (search_.count != nullptr) search_.count->lists += rows * catalogue_.present;
  }

  /// out[rows, head_dim] = scaled queries times a matrix in panels.
  void multiply(std::size_t rows, const float* matrix, float* out, std::size_t stride) {
    const std::size_t dim = rows_.head_dim;
    for (std::size_t d = 0; d < dim; d += kPanelEntries) {
      micro_.gemm_f32(rows, dim, scaled_, dim, matrix + d * dim, out + d, stride, false);
    }
  }
  float dot(const float* a, const float* b) const { return std::inner_product(a, a + rows_.head_dim, b, 0.0F); }

  /// Places of a row come in rising order, but for those of another choice.
  void add_chosen(std::size_t row, std::size_t place) {
    if (place < catalogue_.begins[chunk_]) chunk_ = 0;
    while (place >= catalogue_.begins[chunk_ + 1]) ++chunk_;
    const std::size_t chunk = chunk_;
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

  /// Chooses for every row up to `most` lists that may hold a better key than those found; whether there was any.
  bool choose_next(std::size_t most) {
    bool any = false;
    for (std::size_t row = 0; row < count_; ++row) {
      const float found = best_.least(micro_, row) * search_.scale;
      choice_.next(row, most, found, [&](std::size_t place) { add_chosen(row, place); });
      any = any || !unscanned(row).empty();
    }
    return any;
  }

  /// Scans every list chosen since the last scan once, for all rows that chose it. In the order of their places, in
  /// which each row has its lists: so what a row finds does not depend on which rows come with it.
  void scan_chosen() {
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
    const bool tiled = has_tiles();
    if (tiled) micro_.tiles->shape();
    for (std::size_t begin = 0, end = 0; begin < scans_.size(); begin = end) {
      end = ends_[scans_[begin].of->place];
      for (std::size_t first = begin; first < end; first += at_once_) {
        scan(std::span(scans_).subspan(first, std::min(at_once_, end - first)));
      }
    }
    if (tiled) micro_.tiles->release();
  }

  std::span<Chosen> unscanned(std::size_t row) { return std::span(chosen_[row]).subspan(scanned_lists_[row]); }

  /// Scores the keys of one list for the rows that chose it.
  void scan(std::span<const Scan> rows) {
    const KeyList& list = catalogue_.chunks[rows.front().of->chunk].list[rows.front().of->list];
    const std::size_t bytes = key_list_panel_bytes(rows_.head_dim);
    const QuantisedKernels& kernels = *micro_.quantised;
    const bool tiled = has_tiles() && rows.size() >= kLeastTileRows;
    const QuantisedRows a = quantised_.together(rows.size(), tiled, [&](std::size_t r) { return rows[r].row; });
    if (search_.count != nullptr) search_.count->keys += rows.size() * list.count;
    if (!tiled && !estimates_) return collect(rows, list, a);
    for (std::size_t begin = 0; begin < list.count; begin += kScanned) {
      const std::size_t count = std::min(kScanned, list.count - begin);
      for (std::size_t i = 0; i < count; i += kPanelEntries) {
        const auto gemm = tiled ? kernels.gemm_tiles : kernels.gemm;
        gemm(rows.size(), quantised_.k(), a, list.panels + (begin + i) / kPanelEntries * bytes, scanned_ + i, kScanned,
             false);
      }
      for (std::size_t r = 0; r < rows.size(); ++r) {
        float* scores = scanned_ + r * kScanned;
        best_.offer(micro_, rows[r].row, scores, count, rows[r].of->first + static_cast<std::uint32_t>(begin));
        if (estimates_) weigh(scores, count, *rows[r].of);
      }
    }
  }

  /// The same where nothing else than the best scores is needed.
  void collect(std::span<const Scan> rows, const KeyList& list, const QuantisedRows& a) {
    const std::size_t bytes = key_list_panel_bytes(rows_.head_dim);
    for (std::size_t r = 0; r < rows.size(); ++r) collected_[r] = best_.collected(rows[r].row, rows[r].of->first);
    for (std::size_t begin = 0; begin < list.count; begin += kScanned) {
      const std::size_t count = std::min(kScanned, list.count - begin);
      micro_.quantised->scan(rows.size(), quantised_.k(), a, list.panels + begin / kPanelEntries * bytes, bytes, count,
                             collected_);
      for (std::size_t r = 0; r < rows.size(); ++r) best_.took(micro_, rows[r].row, count, collected_[r]);
    }
  }

  void weigh(float* scores, std::size_t count, Chosen& list) {
    std::fill(scores + count, scores + filled(count), kNothing);
    micro_.scale_row(scores, filled(count), search_.scale);
    const float max = std::max(list.max, micro_.row_max(scores, filled(count)));
    const float before = list.weight == 0 ? 0.0F : list.weight * std::exp(list.max - max);
    list.weight = before + micro_.exp_row(scores, filled(count), max);
    list.max = max;
  }

  /// What the scans found, in order of the entries, scored as it is stored.
  void take_candidates(View<const EntryBlock, 2> blocks, std::span<const std::int64_t> block_begins,
                       std::size_t kv_head) {
    stored_.begin(queries_, count_);
    for (std::size_t row = 0; row < count_; ++row) find_candidates(row);
    std::fill_n(taken_, count_, std::size_t{0});
    stored_.score(
        {blocks.data() + kv_head * blocks.extent(1), blocks.extent(1)}, block_begins,
        [&](std::uint32_t index) { return index >> row_shift_; },
        [&](const StoredScores::Request& request, float score) {
          const std::size_t row = request.index >> row_shift_, at = row * candidates_;
          Candidate& candidate = in_order_[at + taken_[row]++];
          if (estimates_) candidate = found_[at + request.index % (std::size_t{1} << row_shift_)];
          candidate.score = score;
          candidate.entry = request.entry;
        });
  }

  void find_candidates(std::size_t row) {
    const std::vector<Chosen>& lists = chosen_[row];
    best_.write(micro_, row, found_ids_, found_scores_);
    std::size_t at = 0;
    for (std::size_t i = 0; i < candidates_ && found_ids_[i] >= 0; ++i) {
      const auto number = static_cast<std::uint32_t>(found_ids_[i]);
      while (at + 1 < lists.size() && lists[at + 1].first <= number) ++at;
      const ListChunk& chunk = catalogue_.chunks[lists[at].chunk];
      const std::uint32_t entry = chunk.first_entry + chunk.list[lists[at].list].entries[number - lists[at].first];
      if (estimates_) {
        found_[row * candidates_ + i] = {0, entry, static_cast<std::uint32_t>(at), found_scores_[i]};
      }
      stored_.add({entry, static_cast<std::uint32_t>(row << row_shift_ | i)});
    }
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

  void finish_row(std::size_t row, std::int64_t* ids, float* scores, const AttentionPartial* tail, std::size_t flat) {
    const Candidate* of_row = in_order_ + row * candidates_;
    kept_.assign(of_row, of_row + taken_[row]);
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
  std::size_t k_, at_once_, candidates_ = 0, count_ = 0;
  bool scans_all_, estimates_;
  BestLists best_;
  StoredScores stored_;
  QuantisedQueries quantised_;
  float *queries_, *scaled_, *products_, *spreads_, *shifts_, *of_lists_, *expected_, *reach_, *scanned_, *sum_,
      *found_scores_;
  std::int32_t* order_;
  std::uint32_t* places_;
  std::int64_t* found_ids_;
  FoundScores* collected_;
  std::vector<std::vector<Chosen>> chosen_;  // [rows]: by place, those scanned at once
  std::vector<std::size_t> scanned_lists_;   // [rows]: of chosen_
  std::vector<Scan> scans_;
  std::vector<std::size_t> ends_;  // [catalogue's width + 1]
  Candidate *found_, *in_order_;   // [rows][candidates_]; the first for estimates alone
  std::size_t chunk_ = 0;          // that was added to last
  int row_shift_ = 0;              // of a row's number in an index of requests
  std::size_t* taken_;             // [rows]: of in_order_
  std::vector<Candidate> kept_;
  std::vector<float> rests_;
};

}  // namespace memlane::list_search
