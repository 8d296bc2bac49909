#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/block_begins.h"
#include "kernels/cpu/key_tiles.h"
#include "kernels/cpu/list_catalogue.h"
#include "kernels/cpu/list_cells.h"
#include "kernels/cpu/list_rows.h"
#include "kernels/cpu/tile_kernels.h"
#include "kernels/key_lists.h"

namespace memlane::list_search {

// Lists that a row scans before it asks which others may hold a key that is better than those found. Asking again while
// these are scanned saves half of the keys among 16 million and loses some that matter (docs/indexes.md).
inline constexpr std::size_t kFirstLists = 128;
/// The most that the spread of a list's keys may add to the logarithm of its weight: far from its mean a list is not
/// normally distributed.
inline constexpr float kMostSpread = 4;

/// One item's rows and a worker's space for them.
class RowSearch {
 public:
  /// rows: of an item, size.rows() at most.
  RowSearch(CpuExec& exec, std::size_t worker, const QueryRows& rows, const Catalogue& catalogue,
            const ListSearch& search, const SearchSize& size, std::size_t k)
      : micro_(exec.micro()),
        rows_(rows),
        catalogue_(catalogue),
        search_(search),
        size_(size),
        k_(k),
        layout_(exec.worker_scratch(worker, SearchSpace::bytes(size, rows.max_rows()))),
        space_(layout_, size, rows.max_rows()),
        choice_(micro_, catalogue, search, space_.choice),
        cells_(micro_, catalogue, rows.head_dim, space_.cells),
        row_shift_(static_cast<int>(std::bit_width(size.candidates - 1))) {
    MEMLANE_EXPECTS(rows.max_rows() <= std::size_t{1} << (32 - row_shift_));
  }

  void run(View<const float, 3> queries, View<const EntryBlock, 2> blocks, const BlockBegins& begins,
           const QueryRows::Item& item, View<std::int64_t, 3> ids, View<float, 3> scores,
           const AttentionPartial* tail) {
    MEMLANE_EXPECTS((tail != nullptr) == size_.estimates);
    count_ = item.tokens * rows_.group;
    gather_queries(queries, rows_, item, 1.0F, space_.queries);
    space_.quantised.quantise(micro_, space_.queries, count_);
    space_.best.clear(count_);
    std::fill_n(space_.chosen_counts, count_, std::size_t{0});
    std::fill_n(space_.scanned_counts, count_, std::size_t{0});
    choose_first();
    if (size_.scans_all()) {
      scan_chosen();
    } else {
      for (const std::size_t most : {kFirstLists, catalogue_.width()}) {
        if (choose_next(most)) scan_chosen();
      }
    }
    take_candidates(blocks, begins, item.kv_head);
    for (std::size_t row = 0; row < count_; ++row) {
      const std::size_t flat = rows_.flat_index(item, row);
      finish_row(row, ids.data() + flat * k_, scores.data() + flat * k_, tail, flat);
    }
  }

 private:
  /// Floats from one row of space_.reach and space_.expected to the next.
  std::size_t row_width() const { return size_.panels * kPanelEntries; }
  /// Whether lists are scanned by tiles: vector registers are faster with QuantisedKernels::scan, whose scores do not
  /// leave them.
  bool has_tiles() const { return micro_.tiles != nullptr && micro_.tiles->matrix; }

  /// The lists that each row may scan; the greatest score that they are expected to have and the logarithms of their
  /// weights, where those are asked for.
  void choose_first() {
    if (size_.scans_all()) {
      if (size_.estimates) expect(0, count_, true);
      return choose_all();
    }
    const bool weights = search_.needs_weights(size_.estimates);
    const std::size_t width = row_width();
    for (std::size_t first = 0; first < count_; first += space_.at_once) {
      const std::size_t rows = std::min(space_.at_once, count_ - first);
      if (catalogue_.has_opened()) {
        expect_opened(first, rows);
        for (std::size_t row = 0; row < rows; ++row) {
          const auto panels = cells_.panels(row);
          choice_.begin(first + row, {space_.reach + row * width, panels.size() * kPanelEntries}, nullptr,
                        panels.data());
        }
      } else {
        expect(first, rows, weights);
        for (std::size_t row = 0; row < rows; ++row) {
          choice_.begin(first + row, {space_.reach + row * width, catalogue_.width()}, space_.expected + row * width,
                        nullptr);
        }
      }
    }
  }

  /// Of rows from `first` on; space_.reach and space_.expected begin with the first of them.
  void expect(std::size_t first, std::size_t rows, bool weights) {
    const std::size_t dim = rows_.head_dim, width = row_width();
    set_scaled(first, rows);
    for (std::size_t c = 0; c < catalogue_.chunks.size(); ++c) {
      const ListChunk& chunk = catalogue_.chunks[c];
      set_spreads(chunk, rows);
      if (size_.estimates) {
        multiply(rows, chunk.value_covariance, space_.shifts + c * filled(dim), catalogue_.chunks.size() * filled(dim));
      }
      for (std::size_t list = 0; list < chunk.lists; list += kPanelEntries) {
        if (weights) {
          micro_.gemm_f32(rows, dim, space_.scaled, dim, chunk.means + list * dim, space_.of_lists, kPanelEntries,
                          false);
        } else {
          score_means(chunk, list, rows, [&](std::size_t r) { return first + r; });
        }
        const std::size_t place = catalogue_.begins[c] + list;
        for (std::size_t row = 0; row < rows; ++row) {
          const float* means = space_.of_lists + row * kPanelEntries;
          set_reach(chunk, list, means, space_.roots[row], space_.reach + row * width + place);
          float* expected = space_.expected + row * width + place;
          for (std::size_t i = 0; i < kPanelEntries && weights; ++i) {
            expected[i] = means[i] + chunk.log_counts[list + i] +
                          std::min(space_.spreads[row] * chunk.spreads[list + i], kMostSpread);
          }
        }
      }
    }
    if (search_.count != nullptr) search_.count->lists += rows * catalogue_.present;
  }

  /// The reach of the lists that each row compares, in the panels of cells_.panels().
  void expect_opened(std::size_t first, std::size_t rows) {
    const std::size_t width = row_width();
    std::size_t compared = rows * catalogue_.cells;
    set_scaled(first, rows);
    cells_.begin(space_.scaled, rows);
    for (std::size_t c = 0; c < catalogue_.chunks.size(); ++c) {
      const ListChunk& chunk = catalogue_.chunks[c];
      set_spreads(chunk, rows);
      for (std::size_t list = 0; list < chunk.lists; list += kPanelEntries) {
        const auto of_panel = cells_.rows_of((catalogue_.begins[c] + list) / kPanelEntries);
        if (of_panel.empty()) continue;
        score_means(chunk, list, of_panel.size(), [&](std::size_t r) { return first + of_panel[r].row; });
        for (std::size_t r = 0; r < of_panel.size(); ++r) {
          const auto [row, number] = of_panel[r];
          set_reach(chunk, list, space_.of_lists + r * kPanelEntries, space_.roots[row],
                    space_.reach + row * width + number * kPanelEntries);
        }
        compared += of_panel.size() * std::min(chunk.lists - list, kPanelEntries);
      }
    }
    if (search_.count != nullptr) search_.count->lists += compared;
  }

  void set_scaled(std::size_t first, std::size_t rows) {
    const std::size_t dim = rows_.head_dim;
    for (std::size_t i = 0; i < rows * dim; ++i) space_.scaled[i] = space_.queries[first * dim + i] * search_.scale;
  }
  /// Half the variance of a chunk's keys along each row, and its root.
  void set_spreads(const ListChunk& chunk, std::size_t rows) {
    const std::size_t dim = rows_.head_dim;
    multiply(rows, chunk.key_covariance, space_.products, filled(dim));
    for (std::size_t row = 0; row < rows; ++row) {
      space_.spreads[row] = 0.5F * dot(space_.scaled + row * dim, space_.products + row * filled(dim));
      space_.roots[row] = std::sqrt(std::max(space_.spreads[row], 0.0F));
    }
  }

  /// Scaled scores of the means of 32 lists, from `list` on, in int8 as keys are scored, for the rows row_of(0),
  /// row_of(1) ...
  template <class RowOf>
  void score_means(const ListChunk& chunk, std::size_t list, std::size_t rows, const RowOf& row_of) {
    const QuantisedRows a = space_.quantised.together(rows, false, row_of);
    micro_.quantised->gemm(rows, space_.quantised.k(), a,
                           chunk.mean_codes + list / kPanelEntries * key_list_panel_bytes(rows_.head_dim),
                           space_.of_lists, kPanelEntries, false);
    micro_.scale_row(space_.of_lists, rows * kPanelEntries, search_.scale);
  }

  /// The greatest score that is expected of each of 32 lists, from `list` on.
  static void set_reach(const ListChunk& chunk, std::size_t list, const float* means, float root, float* reach) {
    const float* reaches = chunk.reaches + list;
    for (std::size_t i = 0; i < kPanelEntries; ++i) {
      // Of keys that are not finite it may be no number: such a list is scanned.
      const float far = means[i] + root * reaches[i];
      reach[i] = reaches[i] == kNothing ? kNothing : far != far ? -kNothing : far;
    }
  }

  /// out[rows, head_dim] = scaled queries times a matrix in panels.
  void multiply(std::size_t rows, const float* matrix, float* out, std::size_t stride) {
    const std::size_t dim = rows_.head_dim;
    for (std::size_t d = 0; d < dim; d += kPanelEntries) {
      micro_.gemm_f32(rows, dim, space_.scaled, dim, matrix + d * dim, out + d, stride, false);
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
    std::size_t& count = space_.chosen_counts[row];
    MEMLANE_EXPECTS(count < size_.most_lists());
    Chosen* of_row = space_.chosen + row * size_.most_lists();
    if (count > 0) {
      const Chosen& last = of_row[count - 1];
      first = last.first + static_cast<std::uint32_t>(catalogue_.chunks[last.chunk].list[last.list].count);
    }
    of_row[count++] = {.place = static_cast<std::uint32_t>(place),
                       .chunk = static_cast<std::uint32_t>(chunk),
                       .list = static_cast<std::uint32_t>(list),
                       .first = first};
  }

  void choose_all() {
    for (std::size_t row = 0; row < count_; ++row) {
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
      const float found = space_.best.least(micro_, row) * search_.scale;
      choice_.next(row, most, found, [&](std::size_t place) { add_chosen(row, place); });
      any = any || !unscanned(row).empty();
    }
    return any;
  }

  /// Scans every list chosen since the last scan once, for all rows that chose it. In the order of their places, in
  /// which each row has its lists: so what a row finds does not depend on which rows come with it.
  void scan_chosen() {
    const auto for_each = [&](const auto& take) {
      for (std::size_t row = 0; row < count_; ++row) {
        auto number = static_cast<std::uint32_t>(space_.scanned_counts[row]);
        for (const Chosen& list : unscanned(row)) take(list.place, RowItem{static_cast<std::uint32_t>(row), number++});
      }
    };
    const std::size_t* const ends = space_.scan_ends;
    sort_by_place(size_.width, for_each, space_.scan_ends, space_.scans);
    const std::size_t scans = ends[size_.width];
    std::copy_n(space_.chosen_counts, count_, space_.scanned_counts);
    const bool tiled = has_tiles();
    if (tiled) micro_.tiles->shape();
    for (std::size_t begin = 0, end = 0; begin < scans; begin = end) {
      end = ends[chosen(space_.scans[begin]).place];
      for (std::size_t first = begin; first < end; first += space_.at_once) {
        scan({space_.scans + first, std::min(space_.at_once, end - first)});
      }
    }
    if (tiled) micro_.tiles->release();
  }

  std::span<const Chosen> chosen(std::size_t row) const {
    return {space_.chosen + row * size_.most_lists(), space_.chosen_counts[row]};
  }
  std::span<const Chosen> unscanned(std::size_t row) const { return chosen(row).subspan(space_.scanned_counts[row]); }
  Chosen& chosen(const RowItem& scan) const { return space_.chosen[scan.row * size_.most_lists() + scan.number]; }

  /// Scores the keys of one list for the rows that chose it.
  void scan(std::span<const RowItem> rows) {
    const KeyList& list = catalogue_.chunks[chosen(rows.front()).chunk].list[chosen(rows.front()).list];
    const std::size_t bytes = key_list_panel_bytes(rows_.head_dim);
    const QuantisedKernels& kernels = *micro_.quantised;
    const bool tiled = has_tiles() && rows.size() >= kLeastTileRows;
    const QuantisedRows a = space_.quantised.together(rows.size(), tiled, [&](std::size_t r) { return rows[r].row; });
    if (search_.count != nullptr) search_.count->keys += rows.size() * list.count;
    if (!tiled && !size_.estimates) return collect(rows, list, a);
    for (std::size_t begin = 0; begin < list.count; begin += kScanned) {
      const std::size_t count = std::min(kScanned, list.count - begin);
      for (std::size_t i = 0; i < count; i += kPanelEntries) {
        const auto gemm = tiled ? kernels.gemm_tiles : kernels.gemm;
        gemm(rows.size(), space_.quantised.k(), a, list.panels + (begin + i) / kPanelEntries * bytes,
             space_.scanned + i, kScanned, false);
      }
      for (std::size_t r = 0; r < rows.size(); ++r) {
        float* scores = space_.scanned + r * kScanned;
        space_.best.offer(micro_, rows[r].row, scores, count,
                          chosen(rows[r]).first + static_cast<std::uint32_t>(begin));
        if (size_.estimates) weigh(scores, count, chosen(rows[r]));
      }
    }
  }

  /// The same where nothing else than the best scores is needed.
  void collect(std::span<const RowItem> rows, const KeyList& list, const QuantisedRows& a) {
    const std::size_t bytes = key_list_panel_bytes(rows_.head_dim);
    for (std::size_t r = 0; r < rows.size(); ++r)
      space_.collected[r] = space_.best.collected(rows[r].row, chosen(rows[r]).first);
    for (std::size_t begin = 0; begin < list.count; begin += kScanned) {
      const std::size_t count = std::min(kScanned, list.count - begin);
      micro_.quantised->scan(rows.size(), space_.quantised.k(), a, list.panels + begin / kPanelEntries * bytes, bytes,
                             count, space_.collected);
      for (std::size_t r = 0; r < rows.size(); ++r) space_.best.took(micro_, rows[r].row, count, space_.collected[r]);
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
  void take_candidates(View<const EntryBlock, 2> blocks, const BlockBegins& begins, std::size_t kv_head) {
    space_.stored.begin(micro_, space_.queries, count_);
    for (std::size_t row = 0; row < count_; ++row) find_candidates(row);
    std::fill_n(space_.in_order_counts, count_, std::size_t{0});
    space_.stored.score(
        {blocks.data() + kv_head * blocks.extent(1), blocks.extent(1)}, begins,
        [&](std::uint32_t index) { return index >> row_shift_; }, search_.read_ahead,
        [&](const StoredScores::Request& request, float score) {
          const std::size_t row = request.index >> row_shift_, at = row * size_.candidates;
          Candidate& candidate = space_.in_order[at + space_.in_order_counts[row]++];
          if (size_.estimates) candidate = space_.found[at + request.index % (std::size_t{1} << row_shift_)];
          candidate.score = score;
          candidate.entry = request.entry;
        });
  }

  void find_candidates(std::size_t row) {
    const std::span<const Chosen> lists = chosen(row);
    space_.best.write(micro_, row, space_.found_ids, space_.found_scores);
    std::size_t at = 0;
    for (std::size_t i = 0; i < size_.candidates && space_.found_ids[i] >= 0; ++i) {
      const auto number = static_cast<std::uint32_t>(space_.found_ids[i]);
      while (at + 1 < lists.size() && lists[at + 1].first <= number) ++at;
      const ListChunk& chunk = catalogue_.chunks[lists[at].chunk];
      const std::uint32_t entry = chunk.first_entry + chunk.list[lists[at].list].entries[number - lists[at].first];
      if (size_.estimates) {
        space_.found[row * size_.candidates + i] = {0, entry, static_cast<std::uint32_t>(at), space_.found_scores[i]};
      }
      space_.stored.add({entry, static_cast<std::uint32_t>(row << row_shift_ | i)});
    }
  }

  /// Cuts kept_ to the k best, in order; of equal scores those with smaller entries.
  void keep_best() {
    if (kept_.size() <= k_) return;
    for (std::size_t i = 0; i < kept_.size(); ++i) {
      space_.found_scores[i] = kept_[i].score;
      space_.places[i] = static_cast<std::uint32_t>(i);
    }
    micro_.keep_best(k_, kept_.size(), space_.found_scores, space_.places, space_.order);
    for (std::size_t i = 0; i < k_; ++i) kept_[i] = kept_[space_.places[i]];
    kept_.resize(k_);
  }

  void finish_row(std::size_t row, std::int64_t* ids, float* scores, const AttentionPartial* tail, std::size_t flat) {
    const Candidate* of_row = space_.in_order + row * size_.candidates;
    kept_.assign(of_row, of_row + space_.in_order_counts[row]);
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
  const SearchSize& size_;
  std::size_t k_, count_ = 0;
  ScratchLayout layout_;
  SearchSpace space_;
  ListChoice choice_;
  CellChoice cells_;
  std::size_t chunk_ = 0;  // that was added to last
  int row_shift_;          // of a row's number in an index of requests
  std::vector<Candidate> kept_;
  std::vector<float> rests_;
};

}  // namespace memlane::list_search
