#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/cpu/best_lists.h"
#include "kernels/cpu/key_tiles.h"
#include "kernels/cpu/quantised_layout.h"
#include "kernels/key_lists.h"

namespace memlane::list_search {

inline constexpr float kNothing = -std::numeric_limits<float>::infinity();
// Query rows that share the means they are compared with and the keys that they scan: as many as fit into kRowBytes of
// weights of lists, within bounds.
inline constexpr std::size_t kLeastRows = 16, kMostRows = 128, kRowBytes = std::size_t{4} << 20;
inline constexpr std::size_t kScanned = 256;  // keys scored at once
/// The most that the spread of a list's keys may add to the logarithm of its weight: far from its mean a list is not
/// normally distributed.
inline constexpr float kMostSpread = 4;
inline std::size_t filled(std::size_t count) {
  return (count + kPanelEntries - 1) / kPanelEntries * kPanelEntries;
}

struct Candidate {
  float score;
  std::int64_t entry;
  std::uint32_t chosen;  // list it was found in
  float scanned_score;
};

/// Where the lists of all chunks of one kv head stand in a row of expected weights.
struct Catalogue {
  Catalogue(View<const ListChunk, 2> all, std::size_t kv_head)
      : chunks(all.data() + kv_head * all.extent(1), all.extent(1)) {
    begins.reserve(chunks.size() + 1);
    begins.push_back(0);
    for (const ListChunk& chunk : chunks) {
      begins.push_back(begins.back() + filled(chunk.lists));
      present += chunk.lists;
    }
  }
  std::size_t width() const { return begins.back(); }
  std::size_t chunk_of(std::size_t place) const {
    return static_cast<std::size_t>(std::upper_bound(begins.begin(), begins.end(), place) - begins.begin()) - 1;
  }

  std::span<const ListChunk> chunks;
  std::vector<std::size_t> begins;  // [chunks + 1]: multiples of 32
  std::size_t present = 0;          // lists
};

/// A list that a row scans, and what it found there.
struct Chosen {
  std::size_t place;    // in the catalogue
  std::size_t chunk;    // of the kv head
  std::size_t list;     // of the chunk
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
    if (expects) expect(tail != nullptr);
    best_[0].clear(count_);
    chosen_.assign(count_, {});
    if (scans_all_) choose_all();
    for (std::size_t row = 0; row < count_ && !scans_all_; ++row) choose(row);
    scan_chosen(tail != nullptr);
    for (std::size_t row = 0; row < count_; ++row) {
      const std::size_t flat = rows_.flat_index(item, row);
      finish_row(row, blocks, block_begins, item.kv_head, ids.data() + flat * k_, scores.data() + flat * k_, tail,
                 flat);
    }
  }

 private:
  /// A list that a row scans.
  struct Scan {
    Chosen* of;
    std::uint32_t row;
  };
  std::size_t filled_dim() const { return filled_k(rows_.head_dim); }
  std::size_t groups() const { return group_count(rows_.head_dim); }

  BestLists lay_out(ScratchLayout& layout, std::size_t candidates) {
    const std::size_t rows = rows_.max_rows(), dim = rows_.head_dim;
    candidates_ = candidates;
    queries_ = layout.take<float>(rows * dim);
    scaled_ = layout.take<float>(rows * dim);
    products_ = layout.take<float>(rows * filled(dim));
    shifts_ = layout.take<float>(rows * catalogue_.chunks.size() * filled(dim));
    quantised_ = layout.take<std::int8_t>(rows * filled_dim());
    row_scales_ = layout.take<float>(rows * groups());
    row_sums_ = layout.take<std::int32_t>(rows * groups());
    gathered_ = layout.take<std::int8_t>(rows * filled_dim());
    gathered_scales_ = layout.take<float>(rows * groups());
    gathered_sums_ = layout.take<std::int32_t>(rows * groups());
    expected_ = layout.take<float>(rows * catalogue_.width());
    reach_ = layout.take<float>(rows * catalogue_.width());
    weights_ = layout.take<float>(catalogue_.width());
    scanned_ = layout.take<float>(rows * kScanned);
    sum_ = layout.take<float>(filled(dim));
    found_ids_ = layout.take<std::int64_t>(candidates);
    found_scores_ = layout.take<float>(candidates);
    return {layout, candidates, rows};
  }

  /// The logarithms of the weights that each row's lists are expected to have, and the greatest score of each.
  void expect(bool shifts) {
    const std::size_t dim = rows_.head_dim, width = catalogue_.width();
    for (std::size_t i = 0; i < count_ * dim; ++i) scaled_[i] = queries_[i] * search_.scale;
    for (std::size_t c = 0; c < catalogue_.chunks.size(); ++c) {
      const ListChunk& chunk = catalogue_.chunks[c];
      multiply(chunk.key_covariance, products_, filled(dim));
      if (shifts) multiply(chunk.value_covariance, shifts_ + c * filled(dim), catalogue_.chunks.size() * filled(dim));
      for (std::size_t first = 0; first < chunk.lists; first += kPanelEntries) {
        float* out = expected_ + catalogue_.begins[c] + first;
        micro_.gemm_f32(count_, dim, scaled_, dim, chunk.means + first * dim, out, width, false);
        for (std::size_t row = 0; row < count_; ++row) {
          const float spread = 0.5F * dot(scaled_ + row * dim, products_ + row * filled(dim));
          for (std::size_t i = 0; i < kPanelEntries; ++i) {
            float& expected = out[row * width + i];
            const float own = spread * chunk.spreads[first + i], log_count = chunk.log_counts[first + i];
            // About the greatest of so many normal numbers.
            reach_[row * width + catalogue_.begins[c] + first + i] =
                log_count == kNothing ? kNothing : expected + 2 * std::sqrt(std::max(log_count * own, 0.0F));
            expected += log_count + std::min(own, kMostSpread);
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

  void add_chosen(std::size_t row, std::size_t place, std::uint32_t& first) {
    const std::size_t chunk = catalogue_.chunk_of(place);
    const std::size_t list = place - catalogue_.begins[chunk];
    if (list >= catalogue_.chunks[chunk].lists) return;
    chosen_[row].push_back({place, chunk, list, first});
    first += static_cast<std::uint32_t>(catalogue_.chunks[chunk].list[list].count);
  }

  void choose_all() {
    for (std::size_t row = 0; row < count_; ++row) {
      std::uint32_t first = 0;
      chosen_[row].reserve(catalogue_.present);
      for (std::size_t c = 0; c < catalogue_.chunks.size(); ++c) {
        for (std::size_t list = 0; list < catalogue_.chunks[c].lists; ++list) {
          add_chosen(row, catalogue_.begins[c] + list, first);
        }
      }
    }
  }

  /// The lists that reach farthest: what they weigh together can be estimated, which of their keys stand out cannot.
  void choose(std::size_t row) {
    const float* expected = expected_ + row * catalogue_.width();
    const float* reach = reach_ + row * catalogue_.width();
    places_.resize(catalogue_.width());
    std::iota(places_.begin(), places_.end(), 0U);
    const auto more = [&](std::uint32_t a, std::uint32_t b) {
      return reach[a] != reach[b] ? reach[a] > reach[b] : a < b;
    };
    const auto end = places_.begin() + static_cast<std::ptrdiff_t>(search_.probes);
    std::nth_element(places_.begin(), end, places_.end(), more);
    places_.resize(search_.probes);
    if (search_.mass < 1) {
      std::sort(places_.begin(), places_.end(), more);
      places_.resize(enough(expected, search_.mass));
    }
    std::sort(places_.begin(), places_.end());
    std::uint32_t first = 0;
    for (const std::uint32_t place : places_) {
      if (expected[place] != kNothing) add_chosen(row, place, first);
    }
  }

  /// How many of places_, in this order, are expected to have a share of all weight.
  std::size_t enough(const float* expected, double share) {
    const float max = micro_.row_max(expected, catalogue_.width());
    std::copy_n(expected, catalogue_.width(), weights_);
    const double total = static_cast<double>(micro_.exp_row(weights_, catalogue_.width(), max));
    double sum = 0;
    std::size_t count = 0;
    while (count < places_.size() && sum < share * total) sum += static_cast<double>(weights_[places_[count++]]);
    return count;
  }

  /// Scans every chosen list once, for all rows that chose it. In the order of their places, in which each row has its
  /// lists: so what a row finds does not depend on which rows come with it.
  void scan_chosen(bool weighs) {
    scans_.clear();
    for (std::size_t row = 0; row < count_; ++row) {
      for (Chosen& list : chosen_[row]) scans_.push_back({&list, static_cast<std::uint32_t>(row)});
    }
    std::sort(scans_.begin(), scans_.end(), [](const Scan& a, const Scan& b) {
      return a.of->place != b.of->place ? a.of->place < b.of->place : a.row < b.row;
    });
    for (std::size_t begin = 0; begin < scans_.size();) {
      std::size_t end = begin;
      while (end < scans_.size() && scans_[end].of->place == scans_[begin].of->place) ++end;
      scan(std::span(scans_).subspan(begin, end - begin), weighs);
      begin = end;
    }
  }

  /// Scores the keys of one list for the rows that chose it.
  void scan(std::span<const Scan> rows, bool weighs) {
    const KeyList& list = catalogue_.chunks[rows.front().of->chunk].list[rows.front().of->list];
    const std::size_t bytes = key_list_panel_bytes(rows_.head_dim);
    const QuantisedRows a = together(rows);
    for (std::size_t begin = 0; begin < list.count; begin += kScanned) {
      const std::size_t count = std::min(kScanned, list.count - begin);
      for (std::size_t i = 0; i < count; i += kPanelEntries) {
        micro_.quantised->gemm(rows.size(), filled_dim(), a, list.panels + (begin + i) / kPanelEntries * bytes,
                               scanned_ + i, kScanned, false);
      }
      for (std::size_t r = 0; r < rows.size(); ++r) {
        float* scores = scanned_ + r * kScanned;
        best_[0].offer(micro_, rows[r].row, scores, count, rows[r].of->first + static_cast<std::uint32_t>(begin));
        if (weighs) weigh(scores, count, *rows[r].of);
      }
    }
    if (search_.count != nullptr) search_.count->keys += rows.size() * list.count;
  }

  /// Some rows' queries, one behind the other: where they lie if they do, else copied.
  QuantisedRows together(std::span<const Scan> rows) {
    const std::size_t first = rows.front().row;
    const bool in_order = rows.back().row - first + 1 == rows.size();
    const std::int8_t* values = quantised_ + first * filled_dim();
    const float* scales = row_scales_ + first * groups();
    const std::int32_t* sums = row_sums_ + first * groups();
    for (std::size_t r = 0; !in_order && r < rows.size(); ++r) {
      const std::size_t row = rows[r].row;
      std::copy_n(quantised_ + row * filled_dim(), filled_dim(), gathered_ + r * filled_dim());
      std::copy_n(row_scales_ + row * groups(), groups(), gathered_scales_ + r * groups());
      std::copy_n(row_sums_ + row * groups(), groups(), gathered_sums_ + r * groups());
    }
    if (!in_order) {
      values = gathered_;
      scales = gathered_scales_;
      sums = gathered_sums_;
    }
    return {reinterpret_cast<const std::uint32_t*>(values), filled_dim() / 4, scales, sums, groups()};
  }

  void weigh(float* scores, std::size_t count, Chosen& list) {
    std::fill(scores + count, scores + filled(count), kNothing);
    micro_.scale_row(scores, filled(count), search_.scale);
    const float max = std::max(list.max, micro_.row_max(scores, filled(count)));
    const float before = list.weight == 0 ? 0.0F : list.weight * std::exp(list.max - max);
    list.weight = before + micro_.exp_row(scores, filled(count), max);
    list.max = max;
  }

  /// What the scan found, scored as it is stored.
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
      const std::int64_t entry =
          std::int64_t{chunk.first_entry} + chunk.list[lists[at].list].entries[number - lists[at].first];
      kept_.push_back({0, entry, static_cast<std::uint32_t>(at), found_scores_[i]});
    }
    std::sort(kept_.begin(), kept_.end(), [](const Candidate& a, const Candidate& b) { return a.entry < b.entry; });
    std::size_t block = 0;
    for (Candidate& candidate : kept_) {
      if (block_begins[block + 1] <= candidate.entry) {
        block = static_cast<std::size_t>(std::upper_bound(block_begins.begin(), block_begins.end(), candidate.entry) -
                                         block_begins.begin()) -
                1;
      }
      MEMLANE_EXPECTS(block + 1 < block_begins.size());
      candidate.score = stored_score(queries_ + row * rows_.head_dim, blocks.data()[kv_head * blocks.extent(1) + block],
                                     static_cast<std::size_t>(candidate.entry - block_begins[block]));
    }
  }

  float stored_score(const float* query, const EntryBlock& block, std::size_t entry) const {
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

  void finish_row(std::size_t row, View<const EntryBlock, 2> blocks, std::span<const std::int64_t> block_begins,
                  std::size_t kv_head, std::int64_t* ids, float* scores, const AttentionPartial* tail,
                  std::size_t flat) {
    take_candidates(row, blocks, block_begins, kv_head);
    const auto better = [](const Candidate& a, const Candidate& b) {
      return a.score != b.score ? a.score > b.score : a.entry < b.entry;
    };
    const std::size_t kept = std::min(k_, kept_.size());
    std::partial_sort(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(kept), kept_.end(), better);
    kept_.resize(kept);
    if (tail != nullptr) add_tail(row, *tail, flat);
    std::sort(kept_.begin(), kept_.end(), [](const Candidate& a, const Candidate& b) { return a.entry < b.entry; });
    for (std::size_t i = 0; i < k_; ++i) {
      ids[i] = i < kept_.size() ? kept_[i].entry : -1;
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
  std::size_t k_, candidates_ = 0, count_ = 0;
  bool scans_all_;
  std::vector<BestLists> best_;  // one
  float *queries_, *scaled_, *row_scales_, *products_, *shifts_, *expected_, *reach_, *weights_, *scanned_, *sum_,
      *found_scores_, *gathered_scales_;
  std::int8_t *quantised_, *gathered_;
  std::int32_t *row_sums_, *gathered_sums_;
  std::int64_t* found_ids_;
  std::vector<std::vector<Chosen>> chosen_;  // [rows]: by place
  std::vector<Scan> scans_;
  std::vector<std::uint32_t> places_;
  std::vector<Candidate> kept_;
  std::vector<float> rests_;
};

}  // namespace memlane::list_search
