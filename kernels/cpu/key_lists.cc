#include "kernels/key_lists.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/cpu/best_lists.h"
#include "kernels/cpu/key_tiles.h"
#include "kernels/cpu/quantised_layout.h"

namespace memlane {

namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();
constexpr std::size_t kRowsTogether = 16;  // query rows that share the means they are compared with
constexpr std::size_t kScanned = 256;      // keys scored at once
/// The most that the spread of a list's keys may add to the logarithm of its weight: far from its mean a list is not
/// normally distributed.
constexpr float kMostSpread = 4;
/// Shares of a row's weight that are not worth a read of values.
constexpr float kNegligible = 1e-8F;

std::size_t filled(std::size_t count) {
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
    if (expects) expect();
    best_[0].clear(count_);
    chosen_.assign(count_, {});
    if (scans_all_) choose_all();
    for (std::size_t row = 0; row < count_ && !scans_all_; ++row) {
      choose(row);
      for (Chosen& list : chosen_[row]) scan({&list, 1}, 0, row, 1, tail != nullptr);
    }
    for (std::size_t list = 0; scans_all_ && list < chosen_[0].size(); ++list) {
      scan(chosen_[0], list, 0, count_, tail != nullptr);
    }
    for (std::size_t row = 0; row < count_; ++row) {
      const std::size_t flat = rows_.flat_index(item, row);
      finish_row(row, blocks, block_begins, item.kv_head, ids.data() + flat * k_, scores.data() + flat * k_, tail,
                 flat);
    }
  }

 private:
  std::size_t filled_dim() const { return filled_k(rows_.head_dim); }
  std::size_t groups() const { return group_count(rows_.head_dim); }

  BestLists lay_out(ScratchLayout& layout, std::size_t candidates) {
    const std::size_t rows = rows_.max_rows(), dim = rows_.head_dim;
    candidates_ = candidates;
    queries_ = layout.take<float>(rows * dim);
    scaled_ = layout.take<float>(2 * rows * dim);
    quantised_ = layout.take<std::int8_t>(rows * filled_dim());
    row_scales_ = layout.take<float>(rows * groups());
    row_sums_ = layout.take<std::int32_t>(rows * groups());
    expected_ = layout.take<float>(rows * catalogue_.width());
    weights_ = layout.take<float>(catalogue_.width());
    spread_ = layout.take<float>(rows * kPanelEntries);
    scanned_ = layout.take<float>(rows * kScanned);
    sum_ = layout.take<float>(filled(dim));
    found_ids_ = layout.take<std::int64_t>(candidates);
    found_scores_ = layout.take<float>(candidates);
    return {layout, candidates, rows};
  }

  /// The logarithms of the weights that each row's lists are expected to have.
  void expect() {
    const std::size_t dim = rows_.head_dim, width = catalogue_.width();
    float* squares = scaled_ + rows_.max_rows() * dim;
    for (std::size_t i = 0; i < count_ * dim; ++i) {
      scaled_[i] = queries_[i] * search_.scale;
      squares[i] = 0.5F * scaled_[i] * scaled_[i];
    }
    for (std::size_t c = 0; c < catalogue_.chunks.size(); ++c) {
      const ListChunk& chunk = catalogue_.chunks[c];
      for (std::size_t first = 0; first < chunk.lists; first += kPanelEntries) {
        float* out = expected_ + catalogue_.begins[c] + first;
        micro_.gemm_f32(count_, dim, scaled_, dim, chunk.means + first * dim, out, width, false);
        micro_.gemm_f32(count_, dim, squares, dim, chunk.variances + first * dim, spread_, kPanelEntries, false);
        for (std::size_t row = 0; row < count_; ++row) {
          for (std::size_t i = 0; i < kPanelEntries; ++i) {
            out[row * width + i] +=
                chunk.log_counts[first + i] + std::min(spread_[row * kPanelEntries + i], kMostSpread);
          }
        }
      }
    }
    if (search_.count != nullptr) search_.count->lists += count_ * catalogue_.present;
  }

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

  /// The lists that a row expects most of.
  void choose(std::size_t row) {
    const float* expected = expected_ + row * catalogue_.width();
    places_.resize(catalogue_.width());
    std::iota(places_.begin(), places_.end(), 0U);
    const auto more = [&](std::uint32_t a, std::uint32_t b) {
      return expected[a] != expected[b] ? expected[a] > expected[b] : a < b;
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

  /// Scores the keys of a list for rows [row, row + rows), whose chosen lists begin at `of`; the first row's is
  /// of[at].
  void scan(std::span<Chosen> of, std::size_t at, std::size_t row, std::size_t rows, bool weighs) {
    const ListChunk& chunk = catalogue_.chunks[of[at].chunk];
    const KeyList& list = chunk.list[of[at].list];
    const std::size_t bytes = key_list_panel_bytes(rows_.head_dim);
    const QuantisedRows a = {reinterpret_cast<const std::uint32_t*>(quantised_ + row * filled_dim()), filled_dim() / 4,
                             row_scales_ + row * groups(), row_sums_ + row * groups(), groups()};
    for (std::size_t begin = 0; begin < list.count; begin += kScanned) {
      const std::size_t count = std::min(kScanned, list.count - begin);
      for (std::size_t i = 0; i < count; i += kPanelEntries) {
        micro_.quantised->gemm(rows, filled_dim(), a, list.panels + (begin + i) / kPanelEntries * bytes, scanned_ + i,
                               kScanned, false);
      }
      for (std::size_t r = 0; r < rows; ++r) {
        float* scores = scanned_ + r * kScanned;
        best_[0].offer(micro_, row + r, scores, count, of[at].first + static_cast<std::uint32_t>(begin));
        if (weighs) weigh(scores, count, rows == 1 ? of[at] : chosen_[row + r][at]);
      }
    }
    if (search_.count != nullptr) search_.count->keys += rows * list.count;
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
  void add_tail(std::size_t row, const AttentionPartial& tail, std::size_t flat) {
    const std::size_t dim = rows_.head_dim, width = catalogue_.width();
    std::vector<Chosen>& lists = chosen_[row];
    float* weights = expected_ + row * width;
    for (const Chosen& list : lists) weights[list.place] = kNothing;
    float max = width == 0 ? kNothing : micro_.row_max(weights, width);
    for (const Chosen& list : lists) max = std::max(max, list.max);
    if (max == kNothing) max = 0;
    const float unscanned = width == 0 ? 0 : micro_.exp_row(weights, width, max);
    double total = static_cast<double>(unscanned);
    for (const Chosen& list : lists) {
      if (list.weight > 0) total += static_cast<double>(list.weight * std::exp(list.max - max));
    }
    if (search_.mass < 1) keep_enough(max, total);
    std::fill_n(sum_, filled(dim), 0.0F);
    const float least = kNegligible * static_cast<float>(total);
    for (std::size_t c = 0; c < catalogue_.chunks.size(); ++c) {
      const ListChunk& chunk = catalogue_.chunks[c];
      const float* of_chunk = weights + catalogue_.begins[c];
      if (chunk.lists == 0 || micro_.row_max(of_chunk, filled(chunk.lists)) <= least) continue;
      for (std::size_t d = 0; d < dim; d += kPanelEntries) {
        micro_.gemm_f32(1, chunk.lists, of_chunk, chunk.lists, chunk.value_means + d * chunk.lists, sum_ + d,
                        kPanelEntries, true);
      }
    }
    const float rest = add_rests(lists, max);
    const float weight = unscanned + rest;
    tail.weight.data()[flat] = weight;
    tail.max.data()[flat] = weight > 0 ? max : kNothing;
    std::copy_n(sum_, dim, tail.sum.data() + flat * dim);
  }

  /// Adds, for scanned lists, their keys that are not kept; returns their weight.
  float add_rests(std::vector<Chosen>& lists, float max) {
    rests_.assign(lists.size(), 0);
    for (std::size_t i = 0; i < lists.size(); ++i) rests_[i] = lists[i].weight;
    for (const Candidate& kept : kept_) {
      rests_[kept.chosen] -= std::exp(kept.scanned_score * search_.scale - lists[kept.chosen].max);
    }
    float rest = 0;
    for (std::size_t i = 0; i < lists.size(); ++i) {
      // What is left of a difference of equals is rounding.
      if (lists[i].weight == 0 || rests_[i] <= 1e-5F * lists[i].weight) continue;
      const ListChunk& chunk = catalogue_.chunks[lists[i].chunk];
      const float weight = rests_[i] * std::exp(lists[i].max - max);
      rest += weight;
      for (std::size_t d = 0; d < rows_.head_dim; ++d) {
        const std::size_t panel = d / kPanelEntries;
        sum_[d] +=
            weight * chunk.value_means[(panel * chunk.lists + lists[i].list) * kPanelEntries + d % kPanelEntries];
      }
    }
    return rest;
  }

  /// Cuts kept_, best first, where it holds the share `mass` of a total under `max`.
  void keep_enough(float max, double total) {
    double sum = 0;
    std::size_t count = 0;
    while (count < kept_.size() && sum < search_.mass * total) {
      sum += static_cast<double>(std::exp(kept_[count++].score * search_.scale - max));
    }
    kept_.resize(count);
  }

  const MicroKernels& micro_;
  const QueryRows& rows_;
  const Catalogue& catalogue_;
  const ListSearch& search_;
  std::size_t k_, candidates_ = 0, count_ = 0;
  bool scans_all_;
  std::vector<BestLists> best_;  // one
  float *queries_, *scaled_, *row_scales_, *expected_, *weights_, *spread_, *scanned_, *sum_, *found_scores_;
  std::int8_t* quantised_;
  std::int32_t* row_sums_;
  std::int64_t* found_ids_;
  std::vector<std::vector<Chosen>> chosen_;  // [rows]: by place
  std::vector<std::uint32_t> places_;
  std::vector<Candidate> kept_;
  std::vector<float> rests_;
};

}  // namespace

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

void search_lists(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> blocks,
                  View<const ListChunk, 2> chunks, const ListSearch& search, View<std::int64_t, 3> ids,
                  View<float, 3> scores, const AttentionPartial* tail) {
  const QueryRows rows(queries, blocks.extent(0), kRowsTogether);
  const std::size_t k = ids.extent(2);
  MEMLANE_EXPECTS(k >= 1 && search.candidates >= k && search.probes >= 1 && ids.extents() == scores.extents());
  MEMLANE_EXPECTS(chunks.extent(0) == rows.kv_heads && blocks.extent(0) == rows.kv_heads);
  std::vector<std::int64_t> begins(blocks.extent(1) + 1, 0);
  for (std::size_t block = 0; block < blocks.extent(1); ++block) {
    begins[block + 1] = begins[block] + static_cast<std::int64_t>(blocks.data()[block].count);
  }
  MEMLANE_EXPECTS(begins.back() <= std::numeric_limits<std::uint32_t>::max());
  std::vector<Catalogue> catalogues;
  for (std::size_t head = 0; head < rows.kv_heads; ++head) catalogues.emplace_back(chunks, head);
  const std::size_t candidates = std::min(search.candidates, static_cast<std::size_t>(begins.back()));
  if (search.count != nullptr) search.count->rows += rows.tokens * rows.heads;
  exec.pool().run(rows.kv_heads * rows.items_per_head, [&](std::size_t index, std::size_t worker) {
    const QueryRows::Item item = rows.item(index % rows.items_per_head, index / rows.items_per_head);
    RowSearch(exec, worker, rows, catalogues[item.kv_head], search, std::max<std::size_t>(candidates, 1), k)
        .run(queries, blocks, begins, item, ids, scores, tail);
  });
}

}  // namespace memlane
