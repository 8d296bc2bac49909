#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/array.h"
#include "kernels/entries.h"
#include "kernels/error.h"
#include "kernels/key_lists.h"

namespace memlane::list_search {

inline constexpr float kNothing = -std::numeric_limits<float>::infinity();

inline std::size_t filled(std::size_t count) {
  return (count + kPanelEntries - 1) / kPanelEntries * kPanelEntries;
}

// Lists in cells that a row compares: so many times the square root of their number (of 125,878 lists 45 times found
// the best keys as if all were compared, 23 times missed one in a hundred), and for each list that it may scan so many.
// But all, where what is read for it is more than a share of what is read for all: the means of few lists stay in
// caches.
inline constexpr double kOpenedLists = 40, kOpenedOfProbe = 2, kMostShare = 0.5;
// A cell is read as two rows of floats, a list as one of int8.
inline constexpr double kCellBytes = 8;

/// Where the lists of all chunks of one kv head stand in a row of expected weights, and which of them a row compares.
struct Catalogue {
  /// all_lists: whether every row compares all of them.
  Catalogue(View<const ListChunk, 2> all, std::size_t kv_head, const ListSearch& search, bool all_lists)
      : chunks(all.data() + kv_head * all.extent(1), all.extent(1)) {
    begins.reserve(chunks.size() + 1);
    begins.push_back(0);
    for (const ListChunk& chunk : chunks) {
      begins.push_back(begins.back() + filled(chunk.lists));
      present += chunk.lists;
    }
    panels = width() / kPanelEntries;
    if (!all_lists) find_opened(search);
  }
  std::size_t width() const { return begins.back(); }
  bool has_opened() const { return opened > 0; }

  std::span<const ListChunk> chunks;
  std::vector<std::size_t> begins;  // [chunks + 1]: multiples of 32
  std::size_t present = 0;          // lists
  std::size_t panels = 0;           // of 32 lists that a row compares, at most
  std::size_t opened = 0;           // cells whose lists a row compares; 0: it compares all lists
  std::size_t cells = 0;
  std::vector<std::size_t> cell_begins;  // [chunks + 1]: where cells stand in a row, multiples of 32

 private:
  void find_opened(const ListSearch& search) {
    std::size_t in_cells = 0, others = 0, largest = 0;
    cell_begins.assign(1, 0);
    for (const ListChunk& chunk : chunks) {
      cell_begins.push_back(cell_begins.back() + filled(chunk.cells.count));
      cells += chunk.cells.count;
      (chunk.cells.count > 0 ? in_cells : others) += filled(chunk.lists);
      for (std::size_t cell = 0; cell < chunk.cells.count; ++cell) {
        const std::size_t first = chunk.cells.begins[cell], end = chunk.cells.begins[cell + 1];
        largest = std::max(largest, (end - 1) / kPanelEntries + 1 - first / kPanelEntries);
      }
    }
    if (cells == 0) return;
    MEMLANE_EXPECTS(cells * ListCells::kLeastLists <= in_cells);
    const auto lists = static_cast<double>(in_cells), of_cell = lists / static_cast<double>(cells);
    const double wanted =
        std::max(kOpenedLists * std::sqrt(lists), kOpenedOfProbe * static_cast<double>(search.probes));
    const double most = std::ceil(wanted / of_cell);
    // Of a cell's panels the first and the last are shared with others.
    const double read = static_cast<double>(others) + most * (of_cell + static_cast<double>(kPanelEntries)) +
                        kCellBytes * static_cast<double>(cell_begins.back());
    if (read > kMostShare * static_cast<double>(width())) return;
    opened = static_cast<std::size_t>(most);
    panels = std::min(panels, others / kPanelEntries + opened * largest);
  }
};

}  // namespace memlane::list_search
