#include "kernels/cpu/quantised_matmul.h"

#include <algorithm>

#include "kernels/cpu/quantised_layout.h"
#include "kernels/cpu/tile_kernels.h"

namespace memlane {

namespace {

constexpr std::size_t kBlockRows = 224;  // of an item: whole groups of 8 and 14 rows and matrix tiles of 32
constexpr std::size_t kPassGroups = 16;  // of an item's pass over k: 224 x 4096 int8 stay in the second-level cache
constexpr std::size_t kTileRows = 16;
constexpr std::size_t kGroupPanels = kQuantGroup / kPanelRows;  // whose rows are a group of elements
constexpr std::size_t kUnitsStride = kQuantGroup + 16;          // of a group's rows: no power of two

std::size_t panels_of(const PackedMatrix& w) {
  return (w.n() + kPanelRows - 1) / kPanelRows;
}

/// Rows of an input, quantised once, and their products with matrices.
class QuantisedInput {
 public:
  /// Space for m rows of k elements.
  QuantisedInput(CpuExec& exec, std::size_t m, std::size_t k, ScratchLayout& layout)
      : exec_(exec), kernels_(*exec.micro().quantised), m_(m), elements_(k), k_(filled_k(k)), groups_(group_count(k)) {
    tiles_ = kernels_.gemm_tiles != nullptr && m_ >= kLeastTileRows;
    // Without tiles an odd number of lines, so that rows do not compete for the same places of the cache.
    row_bytes_ = tiles_ ? k_ : (k_ / kQuantStep | 1) * kQuantStep;
    values_ = layout.take<std::int8_t>((m_ + kTileRows - 1) / kTileRows * kTileRows * row_bytes_);  // what tiles touch
    scales_ = layout.take<float>(m_ * groups_);
    sums_ = layout.take<std::int32_t>(m_ * groups_);
  }

  /// a: [m, k].
  void quantise(const InputRows& a) const {
    MEMLANE_EXPECTS(a.extent(0) == m_ && a.extent(1) == elements_);
    fill_last_tile();
    exec_.pool().run((m_ + kTileRows - 1) / kTileRows, [&](std::size_t item, std::size_t worker) {
      const std::size_t begin = item * kTileRows;
      auto* const space = reinterpret_cast<float*>(exec_.worker_scratch(worker, elements_ * sizeof(float)));
      for (std::size_t row = begin; row < std::min(m_, begin + kTileRows); ++row) {
        quantise(row, 0, elements_, a.row(exec_.micro(), row, space));
      }
    });
  }
  /// `count` elements of a row from those of `group` on: whole groups, or up to the row's end. Of all rows, once
  /// fill_last_tile was called.
  void quantise(std::size_t row, std::size_t group, std::size_t count, const float* x) const {
    const std::size_t place = row % kTileRows, step = group * (kQuantGroup / kQuantStep);
    std::int8_t* to = tiles_ ? values_ + (row - place) * k_ + (step * kTileRows + place) * kQuantStep
                             : values_ + row * row_bytes_ + step * kQuantStep;
    kernels_.quantise_row(x, count, to, tiles_ ? kTileRows * kQuantStep : kQuantStep, scales_ + row * groups_ + group,
                          sums_ + row * groups_ + group);
  }
  /// Rows of the last tile beyond the end are zeros.
  void fill_last_tile() const {
    const std::size_t rest = m_ % kTileRows;
    if (tiles_ && rest > 0) std::fill_n(values_ + (m_ - rest) * k_, kTileRows * k_, std::int8_t{0});
  }

  /// Calls body(worker, row, rows, begin, end) for all rows, in blocks, and panels [begin, end) of `panels`, a multiple
  /// of `together` but for the last.
  template <class Body>
  void for_blocks(std::size_t panels, std::size_t together, const Body& body) const {
    const std::size_t row_blocks = (m_ + kBlockRows - 1) / kBlockRows;
    // Enough items for every thread to finish at about the same time, few enough to stream a good stretch of weights.
    const std::size_t wanted = std::max<std::size_t>(1, 8 * exec_.threads() / row_blocks);
    const std::size_t most = std::clamp<std::size_t>(panels / wanted, 1, 16);
    const std::size_t chunk = std::max(together, most / together * together);
    const std::size_t chunks = (panels + chunk - 1) / chunk;
    exec_.pool().run(row_blocks * chunks, [&](std::size_t item, std::size_t worker) {
      const std::size_t row = item / chunks * kBlockRows, begin = item % chunks * chunk;
      if (tiles_) exec_.micro().tiles->shape();
      body(worker, row, std::min(kBlockRows, m_ - row), begin, std::min(panels, begin + chunk));
      if (tiles_) exec_.micro().tiles->release();
    });
  }

  /// Rows [row, row + rows) times one panel, to `out` or, if it `adds`, on top of it.
  void multiply(std::size_t worker, std::size_t row, std::size_t rows, const MatrixProduct& product, bool adds,
                std::size_t panel) const {
    const std::size_t n = product.w.n(), columns = std::min(kPanelRows, n - panel * kPanelRows);
    float* const out = product.out.data() + row * n + panel * kPanelRows;
    // Matrix tiles and few rows add every group to what they write to. That lies together meanwhile: rows of `out` are
    // often a power of two apart and would compete for the same lines of the cache. Vector registers write once.
    if (tiles_ && !exec_.micro().tiles->matrix && columns == kPanelRows && !adds) {
      return multiply(worker, row, rows, product.w, panel, out, n);
    }
    alignas(64) float sums[kBlockRows * kPanelRows];
    multiply(worker, row, rows, product.w, panel, sums, kPanelRows);
    for (std::size_t r = 0; r < rows; ++r) {
      if (adds) {
        for (std::size_t c = 0; c < columns; ++c) out[r * n + c] += sums[r * kPanelRows + c];
      } else {
        std::copy_n(sums + r * kPanelRows, columns, out + r * n);
      }
    }
  }

  /// The same to whole panels. to: [rows, 32], rows `stride` apart.
  void multiply(std::size_t worker, std::size_t row, std::size_t rows, const PackedMatrix& w, std::size_t panel,
                float* to, std::size_t stride) const {
    const std::byte* from = reinterpret_cast<const std::byte*>(w.panel(panel));
    // Of few rows the weights come from memory: int4 as it is or, where that is not possible, group by group through
    // the first-level cache.
    const bool few = !tiles_ && rows < kLeastTileRows;
    const bool expands = w.format() == WeightFormat::int4 && !(few && kernels_.gemm_int4 != nullptr);
    const std::size_t pass_groups = expands && few ? 1 : kPassGroups;
    const bool as_int4 = w.format() == WeightFormat::int4 && !expands;
    const auto gemm = as_int4 ? kernels_.gemm_int4 : tiles_ ? kernels_.gemm_tiles : kernels_.gemm;
    for (std::size_t group = 0; group < groups_; group += pass_groups) {
      const std::size_t k = std::min(pass_groups * kQuantGroup, k_ - group * kQuantGroup);
      const std::size_t first = group * kQuantGroup * (tiles_ ? kTileRows : 1) / 4;  // unit
      const QuantisedRows a = {reinterpret_cast<const std::uint32_t*>(values_ + row * row_bytes_) + first,
                               row_bytes_ * (tiles_ ? kTileRows : 1) / 4, scales_ + row * groups_ + group,
                               sums_ + row * groups_ + group, groups_};
      const std::byte* b = expands ? expanded(worker, from, k) : from;
      gemm(rows, k, a, b, to, stride, group > 0);
      from += quantised_panel_bytes(w.format(), k);
    }
  }

 private:
  /// k elements of an int4 panel, whole groups but for the last, as an int8 panel.
  const std::byte* expanded(std::size_t worker, const std::byte* from, std::size_t k) const {
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
  std::size_t m_, elements_, k_, groups_, row_bytes_;
  bool tiles_;
  std::int8_t* values_;  // [m, row_bytes], in tiles [m / 16][k / 64][16][64]
  float* scales_;        // [m, groups]
  std::int32_t* sums_;   // [m, groups]
};

/// What make(layout) makes, over the scratch space that it takes.
template <class Make>
auto in_shared_scratch(CpuExec& exec, const Make& make) {
  ScratchLayout measured(nullptr);
  make(measured);
  ScratchLayout layout(exec.shared_scratch(measured.bytes()));
  return make(layout);
}

QuantisedInput quantised(CpuExec& exec, const InputRows& a) {
  const QuantisedInput input = in_shared_scratch(
      exec, [&](ScratchLayout& layout) { return QuantisedInput(exec, a.extent(0), a.extent(1), layout); });
  input.quantise(a);
  return input;
}

void multiply(const QuantisedInput& input, std::span<const MatrixProduct> products, bool adds) {
  std::size_t panels = 0;
  for (const MatrixProduct& product : products) panels += panels_of(product.w);
  // The panels of all matrices in a row.
  input.for_blocks(panels, 1,
                   [&](std::size_t worker, std::size_t row, std::size_t rows, std::size_t begin, std::size_t end) {
                     for (std::size_t at = begin; at < end; ++at) {
                       std::size_t panel = at;
                       auto product = products.begin();
                       for (; panel >= panels_of(product->w); ++product) panel -= panels_of(product->w);
                       input.multiply(worker, row, rows, *product, adds, panel);
                     }
                   });
}

/// silu(a gate^T) * (a up^T), `together` panels at a time: calls take(worker, row, rows, panel, units) for each, units
/// [rows, 32], in order of those that are together.
template <class Take>
void gated_units(const MicroKernels& micro, const QuantisedInput& a, const PackedMatrix& gate, const PackedMatrix& up,
                 std::size_t together, const Take& take) {
  a.for_blocks(panels_of(gate), together,
               [&](std::size_t worker, std::size_t row, std::size_t rows, std::size_t begin, std::size_t end) {
                 alignas(64) float gates[kBlockRows * kPanelRows];
                 alignas(64) float ups[kBlockRows * kPanelRows];
                 for (std::size_t panel = begin; panel < end; ++panel) {
                   a.multiply(worker, row, rows, gate, panel, gates, kPanelRows);
                   a.multiply(worker, row, rows, up, panel, ups, kPanelRows);
                   micro.swiglu_row(gates, ups, rows * kPanelRows, gates);
                   take(worker, row, rows, panel, gates);
                 }
               });
}

}  // namespace

void quantised_matmul(CpuExec& exec, const InputRows& a, std::span<const MatrixProduct> products) {
  multiply(quantised(exec, a), products, false);
}

void quantised_matmul_add(CpuExec& exec, const InputRows& a, const PackedMatrix& w, View<float, 2> x) {
  const MatrixProduct product{w, x};
  multiply(quantised(exec, a), {&product, 1}, true);
}

void quantised_feed_forward(CpuExec& exec, const InputRows& a, const PackedMatrix& gate, const PackedMatrix& up,
                            const PackedMatrix& down, View<float, 2> gates, View<float, 2> x) {
  const std::size_t m = a.extent(0), n = gate.n();
  const std::size_t block_rows = std::min(m, kBlockRows);
  const std::size_t items = (m + kBlockRows - 1) / kBlockRows * group_count(n);
  if (m < kLeastTileRows || items < 4 * exec.threads()) {  // whole groups would leave threads without work
    gated_units(exec.micro(), quantised(exec, a), gate, up, 1,
                [&](std::size_t, std::size_t row, std::size_t rows, std::size_t panel, const float* units) {
                  const std::size_t columns = std::min(kPanelRows, n - panel * kPanelRows);
                  float* const to = gates.data() + row * n + panel * kPanelRows;
                  for (std::size_t r = 0; r < rows; ++r) std::copy_n(units + r * kPanelRows, columns, to + r * n);
                });
    return quantised_matmul_add(exec, gates, down, x);
  }
  struct Space {
    QuantisedInput input, inner;
    float* units;  // [threads][block_rows, kUnitsStride]: of a group
  };
  const Space space = in_shared_scratch(exec, [&](ScratchLayout& layout) {
    return Space{QuantisedInput(exec, m, a.extent(1), layout), QuantisedInput(exec, m, n, layout),
                 layout.take<float>(exec.threads() * block_rows * kUnitsStride)};
  });
  space.input.quantise(a);
  space.inner.fill_last_tile();
  gated_units(exec.micro(), space.input, gate, up, kGroupPanels,
              [&](std::size_t worker, std::size_t row, std::size_t rows, std::size_t panel, const float* units) {
                float* const all = space.units + worker * block_rows * kUnitsStride;
                const std::size_t group = panel / kGroupPanels, place = panel % kGroupPanels;
                for (std::size_t r = 0; r < rows; ++r) {
                  std::copy_n(units + r * kPanelRows, kPanelRows, all + r * kUnitsStride + place * kPanelRows);
                }
                if (place + 1 < kGroupPanels && panel + 1 < panels_of(gate)) return;
                const std::size_t count = std::min(kQuantGroup, n - group * kQuantGroup);
                for (std::size_t r = 0; r < rows; ++r) {
                  space.inner.quantise(row + r, group, count, all + r * kUnitsStride);
                }
              });
  const MatrixProduct last{down, x};
  multiply(space.inner, {&last, 1}, true);
}

}  // namespace memlane
