// What a search of lists knows of the entries that it does not choose.
#include "kernels/cpu/list_search.h"

namespace memlane::list_search {

namespace {
/// Shares of a row's weight that are not worth a read of values.
constexpr float kNegligible = 1e-8F;
}  // namespace

/// The partial of everything but kept_, which is cut where it holds enough.
void RowSearch::add_tail(std::size_t row, const AttentionPartial& tail, std::size_t flat) {
  const std::size_t dim = rows_.head_dim, width = catalogue_.width();
  const std::span<const Chosen> lists = chosen(row);
  float* weights = space_.expected + row * row_width();
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
  std::fill_n(space_.sum, filled(dim), 0.0F);
  const float least = kNegligible * static_cast<float>(total);
  for (std::size_t c = 0; c < catalogue_.chunks.size(); ++c) {
    const ListChunk& chunk = catalogue_.chunks[c];
    const float* of_chunk = weights + catalogue_.begins[c];
    if (chunk.lists == 0 || micro_.row_max(of_chunk, filled(chunk.lists)) <= least) continue;
    for (std::size_t d = 0; d < dim; d += kPanelEntries) {
      micro_.gemm_f32(1, chunk.lists, of_chunk, chunk.lists, chunk.value_means + d * chunk.lists, space_.sum + d,
                      kPanelEntries, true);
    }
    float shifted = 0;
    for (std::size_t list = 0; list < chunk.lists; ++list) shifted += of_chunk[list] * chunk.spreads[list];
    add_shift(row, c, shifted);
  }
  const float rest = add_rests(row, max);
  const float weight = unscanned + rest;
  tail.weight.data()[flat] = weight;
  tail.max.data()[flat] = weight > 0 ? max : kNothing;
  std::copy_n(space_.sum, dim, tail.sum.data() + flat * dim);
}

/// Adds, for scanned lists, their keys that are not kept; returns their weight.
float RowSearch::add_rests(std::size_t row, float max) {
  const std::span<const Chosen> lists = chosen(row);
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
    add_shift(row, lists[i].chunk, weight * chunk.spreads[lists[i].list]);
    for (std::size_t d = 0; d < rows_.head_dim; ++d) {
      const std::size_t panel = d / kPanelEntries;
      space_.sum[d] +=
          weight * chunk.value_means[(panel * chunk.lists + lists[i].list) * kPanelEntries + d % kPanelEntries];
    }
  }
  return rest;
}

/// What values gain where keys with greater weights have other values.
void RowSearch::add_shift(std::size_t row, std::size_t chunk, float weight) {
  const float* shift = space_.shifts + (row * catalogue_.chunks.size() + chunk) * filled(rows_.head_dim);
  for (std::size_t d = 0; d < rows_.head_dim; ++d) space_.sum[d] += weight * shift[d];
}

/// Cuts kept_, best first, where it holds the share `mass` of a total under `max`.
void RowSearch::keep_enough(float max, double total) {
  std::sort(kept_.begin(), kept_.end(), [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.entry < b.entry;
  });
  double sum = 0;
  std::size_t count = 0;
  while (count < kept_.size() && sum < search_.mass * total) {
    sum += static_cast<double>(std::exp(kept_[count++].score * search_.scale - max));
  }
  kept_.resize(count);
  std::sort(kept_.begin(), kept_.end(), [](const Candidate& a, const Candidate& b) { return a.entry < b.entry; });
}

}  // namespace memlane::list_search
