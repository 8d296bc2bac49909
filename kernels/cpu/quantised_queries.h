#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/array.h"
#include "kernels/cpu/micro_kernels.h"
#include "kernels/cpu/quantised_kernels.h"
#include "kernels/cpu/quantised_layout.h"

namespace memlane {

/// Rows of queries in int8, and any of them brought together for a product.
class QuantisedQueries {
 public:
  /// rows: at most, at_once: that are brought together at most.
  QuantisedQueries(ScratchLayout& layout, std::size_t head_dim, std::size_t rows, std::size_t at_once)
      : head_dim_(head_dim), k_(filled_k(head_dim)), groups_(group_count(head_dim)) {
    const std::size_t whole_tiles = (at_once + 31) / 32 * 32;  // which tiles touch
    all_ = take(layout, rows, rows);
    some_ = take(layout, whole_tiles, at_once);
  }

  /// Along which rows are multiplied: head_dim filled up.
  std::size_t k() const { return k_; }

  /// queries: [rows, head_dim].
  void quantise(const MicroKernels& micro, const float* queries, std::size_t rows) const {
    for (std::size_t row = 0; row < rows; ++row) {
      micro.quantised->quantise_row(queries + row * head_dim_, head_dim_, all_.values + row * k_, kQuantStep,
                                    all_.scales + row * groups_, all_.sums + row * groups_);
    }
  }

  /// Rows row_of(0), row_of(1) ... in rising order: where they lie if they lie one behind the other, else copied.
  /// tiled: in tiles of 16 rows, for QuantisedKernels::gemm_tiles.
  template <class RowOf>
  QuantisedRows together(std::size_t count, bool tiled, const RowOf& row_of) const {
    const std::size_t first = row_of(0);
    if (!tiled && row_of(count - 1) - first + 1 == count) {
      return rows_of({all_.values + first * k_, all_.scales + first * groups_, all_.sums + first * groups_}, 1);
    }
    const std::size_t tile_rows = tiled ? 16 : 1;  // whose steps of 64 elements lie together
    for (std::size_t r = 0; r < count; ++r) {
      const std::size_t row = row_of(r);
      std::int8_t* to = some_.values + r / tile_rows * tile_rows * k_ + r % tile_rows * kQuantStep;
      for (std::size_t step = 0; step < k_; step += kQuantStep) {
        std::memcpy(to + step * tile_rows, all_.values + row * k_ + step, kQuantStep);
      }
      for (std::size_t g = 0; g < groups_; ++g) {
        some_.scales[r * groups_ + g] = all_.scales[row * groups_ + g];
        some_.sums[r * groups_ + g] = all_.sums[row * groups_ + g];
      }
    }
    return rows_of(some_, tile_rows);
  }

 private:
  struct Rows {
    std::int8_t* values = nullptr;  // [rows][k]
    float* scales = nullptr;        // [rows][groups]
    std::int32_t* sums = nullptr;   // [rows][groups]
  };
  Rows take(ScratchLayout& layout, std::size_t value_rows, std::size_t rows) const {
    return {layout.take<std::int8_t>(value_rows * k_), layout.take<float>(rows * groups_),
            layout.take<std::int32_t>(rows * groups_)};
  }
  QuantisedRows rows_of(const Rows& rows, std::size_t tile_rows) const {
    return {reinterpret_cast<const std::uint32_t*>(rows.values), tile_rows * k_ / 4, rows.scales, rows.sums, groups_};
  }

  std::size_t head_dim_ = 0, k_ = 0, groups_ = 0;
  Rows all_, some_;
};

}  // namespace memlane
