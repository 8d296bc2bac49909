#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/best_lists.h"
#include "kernels/cpu/list_catalogue.h"
#include "kernels/cpu/list_cells.h"
#include "kernels/cpu/list_choice.h"
#include "kernels/cpu/quantised_queries.h"
#include "kernels/cpu/row_items.h"
#include "kernels/cpu/stored_scores.h"
#include "kernels/key_lists.h"

namespace memlane::list_search {

// Query rows of an item, which share the keys that are scored again: as many as fit into kItemBytes of what each
// chooses and finds. Of them so many at once are compared with the means of lists, and scored with the keys of a list,
// as fit into kWeightBytes of weights of lists.
inline constexpr std::size_t kMostRows = 1024, kItemBytes = std::size_t{48} << 20;
inline constexpr std::size_t kLeastRows = 16, kMostAtOnce = 128, kWeightBytes = std::size_t{4} << 20;
inline constexpr std::size_t kScanned = 256;  // keys scored at once

static_assert(kScanned <= BestLists::kMost);

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

/// What the space for a search depends on.
struct SearchSize {
  std::size_t head_dim;
  std::size_t chunks, lists, width;  // of a kv head; width: Catalogue's
  std::size_t probes, candidates;
  bool estimates;         // what is not chosen
  std::size_t panels;     // of 32 lists that a row compares
  std::size_t cells = 0;  // in a row of them, where a row does not compare all lists

  /// Lists that a row may scan.
  std::size_t most_lists() const { return std::min(probes, lists); }
  bool scans_all() const { return probes >= lists; }

  /// Rows that are compared with the means of lists at once. With an estimate, which needs their weights to the end, an
  /// item has no more.
  std::size_t most_at_once() const {
    const std::size_t row = (2 * width + (estimates ? chunks * filled(head_dim) : 0)) * sizeof(float);
    return std::clamp(kWeightBytes / (row + 1), kLeastRows, kMostAtOnce);
  }
  /// Rows of an item at most.
  std::size_t most_rows() const {
    if (estimates) return most_at_once();
    const std::size_t chosen = most_lists() * (sizeof(Chosen) + sizeof(RowItem) + ListChoice::Space::kListBytes);
    const std::size_t found = candidates * (sizeof(Candidate) + 2 * sizeof(StoredScores::Request));
    return std::clamp<std::size_t>(kItemBytes / (chosen + found), 1, kMostRows);
  }
  /// Rows of an item: fewer where threads would have no work, and of a kv head's items all about the same.
  /// of_head: rows of one of `kv_heads`.
  std::size_t rows(std::size_t of_head, std::size_t kv_heads, std::size_t threads) const {
    const std::size_t most = rows_at_most(of_head, kv_heads, threads);
    const std::size_t items = (of_head + most - 1) / most;
    return items == 0 ? 1 : (of_head + items - 1) / items;
  }
  /// The same of as many rows or fewer.
  std::size_t rows_at_most(std::size_t of_head, std::size_t kv_heads, std::size_t threads) const {
    const std::size_t for_all = std::max(of_head * kv_heads / (3 * threads), kLeastRows);
    return std::min({most_rows(), for_all, std::max<std::size_t>(of_head, 1)});
  }
};

/// A worker's space for the rows of an item.
struct SearchSpace {
  SearchSpace(ScratchLayout& layout, const SearchSize& size, std::size_t rows)
      : at_once(size.estimates ? rows : std::min(rows, size.most_at_once())),
        best(layout, size.candidates, rows),
        stored(layout, size.head_dim, rows, rows * size.candidates),
        quantised(layout, size.head_dim, rows, at_once),
        choice(layout, size.panels * kPanelEntries, rows, size.scans_all() ? 0 : size.most_lists()),
        cells(layout, size.head_dim, size.cells > 0 ? at_once : 0, size.cells, size.width / kPanelEntries,
              size.panels) {
    const std::size_t dim = size.head_dim, candidates = size.candidates, lists = rows * size.most_lists();
    chosen = layout.take<Chosen>(lists);
    scans = layout.take<RowItem>(lists);
    chosen_counts = layout.take<std::size_t>(rows);
    scanned_counts = layout.take<std::size_t>(rows);
    scan_ends = layout.take<std::size_t>(size.width + 1);
    found = layout.take<Candidate>(size.estimates ? rows * candidates : 0);
    in_order = layout.take<Candidate>(rows * candidates);
    in_order_counts = layout.take<std::size_t>(rows);
    queries = layout.take<float>(rows * dim);
    scaled = layout.take<float>(at_once * dim);
    products = layout.take<float>(at_once * filled(dim));
    spreads = layout.take<float>(at_once);
    roots = layout.take<float>(at_once);
    shifts = layout.take<float>(size.estimates ? at_once * size.chunks * filled(dim) : 0);
    of_lists = layout.take<float>(at_once * kPanelEntries);
    expected = layout.take<float>(at_once * size.panels * kPanelEntries);
    reach = layout.take<float>(at_once * size.panels * kPanelEntries);
    scanned = layout.take<float>(at_once * kScanned);
    collected = layout.take<FoundScores>(at_once);
    sum = layout.take<float>(filled(dim));
    places = layout.take<std::uint32_t>(filled(candidates));
    order = layout.take<std::int32_t>(filled(candidates));
    found_ids = layout.take<std::int64_t>(candidates);
    found_scores = layout.take<float>(filled(candidates));
  }
  static std::size_t bytes(const SearchSize& size, std::size_t rows) {
    ScratchLayout layout(nullptr);
    const SearchSpace measured(layout, size, rows);
    return layout.bytes();
  }

  std::size_t at_once;  // rows that are compared with the means of lists, or scored with a list's keys
  BestLists best;
  StoredScores stored;
  QuantisedQueries quantised;
  ListChoice::Space choice;
  CellChoice::Space cells;
  Chosen* chosen;                               // [rows][lists]: by place, those scanned at once
  RowItem* scans;                               // by place, then row: of a row's chosen ones
  std::size_t *chosen_counts, *scanned_counts;  // [rows]: of chosen
  std::size_t* scan_ends;                       // [width + 1]
  Candidate *found, *in_order;                  // [rows][candidates]; the first for estimates alone
  std::size_t* in_order_counts;                 // [rows]
  float *queries, *scaled;                      // [rows][head_dim]
  float *products, *shifts;                     // [at once][head_dim], [at once][chunks][head_dim]
  float *spreads, *roots, *of_lists;            // [at once], [at once], [at once][32]
  float *expected, *reach;                      // [at once][panels][32]
  float* scanned;                               // [at once][kScanned]
  FoundScores* collected;                       // [at once]
  float* sum;                                   // [head_dim]
  std::uint32_t* places;                        // [candidates], as all below
  std::int32_t* order;
  std::int64_t* found_ids;
  float* found_scores;
};

}  // namespace memlane::list_search
