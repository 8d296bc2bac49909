#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

#include "kernels/cpu/list_catalogue.h"
#include "kernels/cpu/micro_kernels.h"
#include "kernels/cpu/row_items.h"
#include "kernels/exec.h"
#include "kernels/key_lists.h"

namespace memlane::list_search {

/// Which panels of 32 lists each row of a search compares, where there are so many lists that it does not compare all:
/// those with lists of the cells that reach farthest, and those of chunks without cells. What a row compares depends on
/// the row alone.
class CellChoice {
 public:
  struct Space {
    /// cells: Catalogue's in a row; all: panels; compared: by a row at most.
    Space(ScratchLayout& layout, std::size_t head_dim, std::size_t rows, std::size_t cells, std::size_t all,
          std::size_t compared)
        : most(compared),
          squares(layout.take<float>(rows * head_dim)),
          reach(layout.take<float>(rows * cells)),
          products(layout.take<float>(rows * kPanelEntries)),
          best(layout.take<float>(cells + kPanelEntries)),
          places(layout.take<std::uint32_t>(cells + kPanelEntries)),
          order(layout.take<std::int32_t>(cells + kPanelEntries)),
          panels(layout.take<std::uint32_t>(rows * compared)),
          counts(layout.take<std::size_t>(rows)),
          ends(layout.take<std::size_t>(all + 1)),
          comparisons(layout.take<RowItem>(rows * compared)) {}
    std::size_t most;
    float* squares;   // [rows][head_dim]: of elements of queries
    float* reach;     // [rows][cells]
    float* products;  // [rows][32]
    float* best;      // [cells and a panel], as the two below
    std::uint32_t* places;
    std::int32_t* order;
    std::uint32_t* panels;  // [rows][most], rising
    std::size_t* counts;    // [rows]: of panels
    std::size_t* ends;      // [all panels + 1]: of comparisons
    RowItem* comparisons;   // of panels
  };

  CellChoice(const MicroKernels& micro, const Catalogue& catalogue, std::size_t head_dim, const Space& space)
      : micro_(micro), catalogue_(catalogue), head_dim_(head_dim), space_(space) {}

  /// scaled: [rows][head_dim], queries times the scale of scores.
  void begin(const float* scaled, std::size_t rows) {
    find_reach(scaled, rows);
    for (std::size_t row = 0; row < rows; ++row) open(row);
    order_by_panel(rows);
  }
  /// Of the catalogue, that a row compares.
  std::span<const std::uint32_t> panels(std::size_t row) const {
    return {space_.panels + row * space_.most, space_.counts[row]};
  }
  /// Rows that compare a panel, rising, and which of their panels it is.
  std::span<const RowItem> rows_of(std::size_t panel) const {
    const std::size_t begin = panel == 0 ? 0 : space_.ends[panel - 1];
    return {space_.comparisons + begin, space_.ends[panel] - begin};
  }

 private:
  /// The greatest score that is expected of each cell: if its keys are normally distributed, each element by itself.
  void find_reach(const float* scaled, std::size_t rows) {
    const std::size_t width = catalogue_.cell_begins.back();
    for (std::size_t i = 0; i < rows * head_dim_; ++i) space_.squares[i] = scaled[i] * scaled[i];
    for (std::size_t c = 0; c < catalogue_.chunks.size(); ++c) {
      const ListCells& cells = catalogue_.chunks[c].cells;
      for (std::size_t first = 0; first < cells.count; first += kPanelEntries) {
        float* const reach = space_.reach + catalogue_.cell_begins[c] + first;
        micro_.gemm_f32(rows, head_dim_, scaled, head_dim_, cells.means + first * head_dim_, reach, width, false);
        micro_.gemm_f32(rows, head_dim_, space_.squares, head_dim_, cells.variances + first * head_dim_,
                        space_.products, kPanelEntries, false);
        for (std::size_t row = 0; row < rows; ++row) {
          for (std::size_t i = 0; i < kPanelEntries; ++i) {
            const float log_count = cells.log_counts[first + i];
            float& far = reach[row * width + i];
            far += std::sqrt(2 * std::max(log_count, 0.0F) * space_.products[row * kPanelEntries + i]);
            // Of keys that are not finite it may be no number: such a cell comes first.
            far = log_count == kNothing ? kNothing : far != far ? -kNothing : far;
          }
        }
      }
    }
  }

  void open(std::size_t row) {
    const std::size_t width = catalogue_.cell_begins.back();
    const std::size_t found =
        micro_.collect(space_.reach + row * width, width, kNothing, 0, space_.best, space_.places);
    std::size_t count = found;
    if (count > catalogue_.opened) {
      count = catalogue_.opened;
      micro_.keep_best(count, found, space_.best, space_.places, space_.order);
    }
    std::size_t& taken = space_.counts[row] = 0;
    std::uint32_t* const panels = space_.panels + row * space_.most;
    const auto take = [&](std::size_t first, std::size_t end) {
      for (std::size_t panel = first; panel < end; ++panel) {
        if (taken > 0 && panels[taken - 1] >= panel) continue;  // the cell before ends in it
        MEMLANE_EXPECTS(taken < space_.most);
        panels[taken++] = static_cast<std::uint32_t>(panel);
      }
    };
    for (std::size_t c = 0, at = 0; c < catalogue_.chunks.size(); ++c) {
      const ListCells& cells = catalogue_.chunks[c].cells;
      const std::size_t first = catalogue_.begins[c] / kPanelEntries;
      if (cells.count == 0) take(first, catalogue_.begins[c + 1] / kPanelEntries);
      for (; at < count && space_.places[at] < catalogue_.cell_begins[c + 1]; ++at) {
        const std::size_t cell = space_.places[at] - catalogue_.cell_begins[c];
        take(first + cells.begins[cell] / kPanelEntries, first + (cells.begins[cell + 1] - 1) / kPanelEntries + 1);
      }
    }
  }

  void order_by_panel(std::size_t rows) {
    const auto for_each = [&](const auto& take) {
      for (std::uint32_t row = 0; row < rows; ++row) {
        std::uint32_t number = 0;
        for (const std::uint32_t panel : panels(row)) take(panel, RowItem{row, number++});
      }
    };
    sort_by_place(catalogue_.width() / kPanelEntries, for_each, space_.ends, space_.comparisons);
  }

  const MicroKernels& micro_;
  const Catalogue& catalogue_;
  std::size_t head_dim_;
  Space space_;
};

}  // namespace memlane::list_search
