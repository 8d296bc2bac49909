#include "kernels/cpu/quantised_matmul.h"

#include <algorithm>

#include "kernels/cpu/quantised_layout.h"
#include "kernels/cpu/tile_kernels.h"

namespace memlane {

namespace {

constexpr std::size_t kBlockRows = 224;  // of an item: whole register tiles of 14 rows and matrix tiles of 32
constexpr std::size_t kPassGroups = 16;  // of an item's pass over k: 224 x 4096 int8 stay in the second-level cache
constexpr std::size_t kTileRows = 16;

/// The product of an input, quantised, with one matrix.
class Product {
 public:
  Product(CpuExec& exec, View<const float, 2> a, const PackedMatrix& w, View<float, 2> out)
      : exec_(exec), kernels_(*exec.micro().quantised), a_(a), w_(w), out_(out), m_(a.extent(0)), k_(filled_k(w.k())) {
    tiles_ = kernels_.gemm_tiles != nullptr && m_ >= kLeastTileRows;
    groups_ = group_count(w.k());
    // Without tiles an odd number of lines, so that rows do not compete for the same places of the cache.
    row_bytes_ = tiles_ ? k_ : (k_ / kQuantStep | 1) * kQuantStep;
    const std::size_t rows = (m_ + kTileRows - 1) / kTileRows * kTileRows;  // what tiles touch
    const auto lay_out = [&](std::byte* base) {
      ScratchLayout layout(base);
      values_ = layout.take<std::int8_t>(rows * row_bytes_);
      scales_ = layout.take<float>(m_ * groups_);
      sums_ = layout.take<std::int32_t>(m_ * groups_);
      return layout.bytes();
    };
    lay_out(exec.shared_scratch(lay_out(nullptr)));
  }

  void run() {
    exec_.pool().run((m_ + kTileRows - 1) / kTileRows, [&](std::size_t item, std::size_t) { quantise(item); });
    const std::size_t panels = (w_.n() + kPanelRows - 1) / kPanelRows;
    const std::size_t row_blocks = (m_ + kBlockRows - 1) / kBlockRows;
    // Enough items for every thread to finish at about the same time, few enough to stream a good stretch of weights.
    const std::size_t wanted = std::max<std::size_t>(1, 8 * exec_.threads() / row_blocks);
    const std::size_t chunk = std::clamp<std::size_t>(panels / wanted, 1, 16);
    const std::size_t chunks = (panels + chunk - 1) / chunk;
    exec_.pool().run(row_blocks * chunks, [&](std::size_t item, std::size_t worker) {
      const std::size_t row = item / chunks * kBlockRows, begin = item % chunks * chunk;
      if (tiles_) exec_.micro().tiles->shape();
      for (std::size_t panel = begin; panel < std::min(panels, begin + chunk); ++panel) {
        multiply(worker, row, std::min(kBlockRows, m_ - row), panel);
      }
      if (tiles_) exec_.micro().tiles->release();
    });
  }

 private:
  /// Rows [16 item, 16 item + 16), of which those beyond the end are zeros in tiles.
  void quantise(std::size_t item) {
    const std::size_t begin = item * kTileRows, end = std::min(m_, begin + kTileRows);
    if (tiles_ && end < begin + kTileRows) std::fill_n(values_ + begin * k_, kTileRows * k_, std::int8_t{0});
    for (std::size_t row = begin; row < end; ++row) {
      std::int8_t* values = values_ + (tiles_ ? begin * k_ + (row - begin) * kQuantStep : row * row_bytes_);
      kernels_.quantise_row(a_.data() + row * w_.k(), w_.k(), values, tiles_ ? kTileRows * kQuantStep : kQuantStep,
                            scales_ + row * groups_, sums_ + row * groups_);
    }
  }

  /// Rows [row, row + rows) times one panel.
  void multiply(std::size_t worker, std::size_t row, std::size_t rows, std::size_t panel) {
    // Sums lie together until they are whole: rows of `out` are often a power of two apart and would compete for the
    // same lines of the cache with every group.
    alignas(64) float sums[kBlockRows * kPanelRows];
    const std::size_t columns = std::min(kPanelRows, w_.n() - panel * kPanelRows);
    float* out = out_.data() + row * w_.n() + panel * kPanelRows;
    const std::byte* from = reinterpret_cast<const std::byte*>(w_.panel(panel));
    // Of few rows the weights come from memory: int4 as it is or, where that is not possible, group by group through
    // the first-level cache.
    const bool few = !tiles_ && rows < kLeastTileRows;
    const bool expands = w_.format() == WeightFormat::int4 && !(few && kernels_.gemm_int4 != nullptr);
    const std::size_t pass_groups = expands && few ? 1 : kPassGroups;
    const bool as_int4 = w_.format() == WeightFormat::int4 && !expands;
    const auto gemm = as_int4 ? kernels_.gemm_int4 : tiles_ ? kernels_.gemm_tiles : kernels_.gemm;
    for (std::size_t group = 0; group < groups_; group += pass_groups) {
      const std::size_t k = std::min(pass_groups * kQuantGroup, k_ - group * kQuantGroup);
      const std::size_t first = group * kQuantGroup * (tiles_ ? kTileRows : 1) / 4;  // unit
      const QuantisedRows a = {reinterpret_cast<const std::uint32_t*>(values_ + row * row_bytes_) + first,
                               row_bytes_ * (tiles_ ? kTileRows : 1) / 4, scales_ + row * groups_ + group,
                               sums_ + row * groups_ + group, groups_};
      const std::byte* b = expands ? expanded(worker, from, k) : from;
      gemm(rows, k, a, b, sums, kPanelRows, group > 0);
      from += quantised_panel_bytes(w_.format(), k);
    }
    for (std::size_t r = 0; r < rows; ++r) std::copy_n(sums + r * kPanelRows, columns, out + r * w_.n());
  }

  /// k elements of an int4 panel, whole groups but for the last, as an int8 panel.
  const std::byte* expanded(std::size_t worker, const std::byte* from, std::size_t k) {
    std::byte* const to = exec_.worker_scratch(worker, quantised_panel_bytes(WeightFormat::int8, k));
    std::byte* at = to;
    for (std::size_t group = 0; group < group_count(k); ++group) {
      const std::size_t length = group_length(k, group);
      kernels_.expand_int4(from, length, at);
      from += group_bytes(WeightFormat::int4, length);
      at += group_bytes(WeightFormat::int8, length);
    }
    return to;
  }

  CpuExec& exec_;
  const QuantisedKernels& kernels_;
  View<const float, 2> a_;
  const PackedMatrix& w_;
  View<float, 2> out_;
  std::size_t m_, k_, groups_ = 0, row_bytes_ = 0;
  bool tiles_ = false;
  std::int8_t* values_ = nullptr;  // [m, row_bytes], in tiles [m / 16][k / 64][16][64]
  float* scales_ = nullptr;        // [m, groups]
  std::int32_t* sums_ = nullptr;   // [m, groups]
};

}  // namespace

void quantised_matmul(CpuExec& exec, View<const float, 2> a, const PackedMatrix& w, View<float, 2> out) {
  Product(exec, a, w, out).run();
}

}  // namespace memlane
