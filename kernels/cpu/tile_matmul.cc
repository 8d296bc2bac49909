#include "kernels/cpu/tile_matmul.h"

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/tile_kernels.h"
#include "kernels/layers.h"

namespace memlane {

namespace {

constexpr std::size_t kPanel = 32;
constexpr std::size_t kTileRows = 16;
constexpr std::size_t kBlockRows = 256;      // rows of a per item
constexpr std::size_t kStretchUnits = 1024;  // of its k, in pieces: 256 rows take 1 MB, half a second-level cache
constexpr std::size_t kPieceUnits = 128;     // of a stretch: a panel's piece takes 16 KB, 32 rows of it as much
constexpr std::size_t kFewRows = 32;         // up to so many take the weights as they come from memory
constexpr std::size_t kMostPanels = 16;      // of an item

/// The largest part of `units`, at most `most` and whole tiles, that cuts them into equal parts.
std::size_t equal_parts(std::size_t units, std::size_t most) {
  const std::size_t parts = (units + most - 1) / most;
  return ((units + parts - 1) / parts + 15) / 16 * 16;
}

/// Rows of a in tiles, as gemm of TileKernels takes them.
struct TiledRows {
  const std::uint32_t* tiles;
  std::size_t stride;  // units from 16 rows to the next

  static std::size_t stride_of(std::size_t k) { return (k + kPanel - 1) / kPanel * kTileRows * kTileRows; }
  static std::size_t units_of(std::size_t m, std::size_t k) { return (m + kTileRows - 1) / kTileRows * stride_of(k); }
  const std::uint32_t* at(std::size_t row, std::size_t unit) const {
    return tiles + row / kTileRows * stride + unit * kTileRows;
  }
};

TiledRows pack(CpuExec& exec, const InputRows& a, std::uint32_t* tiles) {
  const std::size_t m = a.extent(0), k = a.extent(1), stride = TiledRows::stride_of(k);
  const MicroKernels& micro = exec.micro();
  exec.pool().run((m + kTileRows - 1) / kTileRows, [&](std::size_t item, std::size_t worker) {
    const std::size_t first = item * kTileRows, rows = std::min(kTileRows, m - first);
    std::uint32_t* const to = tiles + item * stride;
    if (a.stored()) return micro.tiles->pack(rows, k, a.data() + first * k, k, to);
    auto* const space = reinterpret_cast<float*>(exec.worker_scratch(worker, k * sizeof(float)));
    for (std::size_t r = 0; r < rows; ++r) {
      micro.tiles->pack(1, k, a.row(micro, first + r, space), k, to + r * kTileRows);
    }
  });
  return {tiles, stride};
}

/// Whether gemm is given a piece of k at a time, whose part of a panel stays in the first-level cache: many rows by
/// matrix tiles are faster than the second-level one. Vector registers are not; all of k spares them loading and
/// storing sums.
bool takes_pieces(const TileKernels& kernels, std::size_t rows) {
  return kernels.matrix && rows > kFewRows;
}

/// sums, [rows, 32], of units [first, last) of k with one panel; they go on from what they are unless first is 0.
void add_products(const TileKernels& kernels, const TiledRows& a, std::size_t row, std::size_t rows,
                  const PackedMatrix& w, std::size_t panel, std::size_t first, std::size_t last, float* sums) {
  const std::size_t piece = takes_pieces(kernels, rows) ? equal_parts(last - first, kPieceUnits) : last - first;
  for (std::size_t unit = first; unit < last; unit += piece) {
    const auto* b = w.panel(panel) + unit * kPanel;
    kernels.gemm(rows, std::min(piece, last - unit), a.at(row, unit), a.stride, b, sums, kPanel, unit > 0);
  }
}

/// Panels [begin, end) of a product. In pieces, a stretch of k at a time, so that its rows of a stay in the
/// second-level cache while panels pass. Sums lie together meanwhile: rows of `out` are often a power of two apart and
/// would compete for the same lines. adds: to what is in `out`, where there are no pieces.
void multiply_block(const TileKernels& kernels, const TiledRows& a, std::size_t row, std::size_t rows,
                    const MatrixProduct& product, bool adds, std::size_t begin, std::size_t end) {
  alignas(64) float sums[kBlockRows * kPanel];
  const std::size_t units = product.w.k_units(), n = product.w.n();
  const bool pieces = takes_pieces(kernels, rows);
  const std::size_t stretch = pieces ? equal_parts(units, kStretchUnits) : units;
  for (std::size_t first = 0; first < units; first += stretch) {
    const std::size_t last = std::min(units, first + stretch);
    for (std::size_t panel = begin; panel < end; ++panel) {
      const std::size_t columns = std::min(kPanel, n - panel * kPanel);
      float* const to = product.out.data() + row * n + panel * kPanel;
      if (!pieces && columns == kPanel && !adds) {
        kernels.gemm(rows, units, a.at(row, 0), a.stride, product.w.panel(panel), to, n, false);
        continue;
      }
      for (std::size_t r = 0; first > 0 && r < rows; ++r) std::copy_n(to + r * n, columns, sums + r * kPanel);
      add_products(kernels, a, row, rows, product.w, panel, first, last, sums);
      for (std::size_t r = 0; r < rows; ++r) {
        if (adds) {
          for (std::size_t c = 0; c < columns; ++c) to[r * n + c] += sums[r * kPanel + c];
        } else {
          std::copy_n(sums + r * kPanel, columns, to + r * n);
        }
      }
    }
  }
}

TiledRows packed_in_scratch(CpuExec& exec, const InputRows& a) {
  std::byte* scratch = exec.shared_scratch(TiledRows::units_of(a.extent(0), a.extent(1)) * 4);
  return pack(exec, a, reinterpret_cast<std::uint32_t*>(scratch));
}

std::size_t panels_of(const PackedMatrix& w) {
  return (w.n() + kPanel - 1) / kPanel;
}

/// Calls body(row, rows, panel_begin, panel_end) for blocks of all rows and panels: enough items for every thread to
/// finish at about the same time, few enough for each to stream a good stretch of weights.
template <class Body>
void for_blocks(CpuExec& exec, std::size_t m, std::size_t block_rows, std::size_t panels, const Body& body) {
  const std::size_t row_blocks = (m + block_rows - 1) / block_rows;
  const std::size_t wanted = std::max<std::size_t>(1, 8 * exec.threads() / row_blocks);
  const std::size_t chunk = std::clamp<std::size_t>(panels / wanted, 1, kMostPanels);
  const std::size_t chunks = (panels + chunk - 1) / chunk;
  exec.pool().run(row_blocks * chunks, [&](std::size_t item, std::size_t) {
    const std::size_t row = item / chunks * block_rows, begin = item % chunks * chunk;
    body(row, std::min(block_rows, m - row), begin, std::min(panels, begin + chunk));
  });
}

void multiply(CpuExec& exec, const TiledRows& a, std::span<const MatrixProduct> products, bool adds) {
  const TileKernels& kernels = *exec.micro().tiles;
  std::size_t panels = 0;
  for (const MatrixProduct& product : products) panels += panels_of(product.w);
  // The panels of all matrices in a row.
  for_blocks(exec, products.front().out.extent(0), kBlockRows, panels,
             [&](std::size_t row, std::size_t rows, std::size_t begin, std::size_t end) {
               for (const MatrixProduct& product : products) {
                 const std::size_t of_this = panels_of(product.w);
                 if (begin < of_this) {
                   multiply_block(kernels, a, row, rows, product, adds, begin, std::min(end, of_this));
                 }
                 if (end <= of_this) break;
                 begin = begin > of_this ? begin - of_this : 0;
                 end -= of_this;
               }
             });
}

}  // namespace

void matmul_by_tiles(CpuExec& exec, const InputRows& a, std::span<const MatrixProduct> products) {
  multiply(exec, packed_in_scratch(exec, a), products, false);
}

bool adds_by_tiles(const CpuExec& exec) {
  return exec.micro().tiles != nullptr && !exec.micro().tiles->matrix;
}

void matmul_add_by_tiles(CpuExec& exec, const InputRows& a, const PackedMatrix& w, View<float, 2> x) {
  const MatrixProduct product{w, x};
  multiply(exec, packed_in_scratch(exec, a), {&product, 1}, true);
}

bool feeds_forward_by_tiles(const CpuExec& exec, const PackedMatrix& gate) {
  return !exec.micro().tiles->matrix || gate.k_units() <= kStretchUnits;
}

void feed_forward_by_tiles(CpuExec& exec, const InputRows& a, const PackedMatrix& gate, const PackedMatrix& up,
                           const PackedMatrix& down, View<float, 2> space, View<float, 2> x) {
  const TileKernels& kernels = *exec.micro().tiles;
  const std::size_t m = a.extent(0), units = gate.k_units(), inner_stride = TiledRows::stride_of(gate.n());
  const std::size_t a_units = TiledRows::units_of(m, a.extent(1));
  auto* tiles = reinterpret_cast<std::uint32_t*>(exec.shared_scratch((a_units + TiledRows::units_of(m, gate.n())) * 4));
  const TiledRows packed = pack(exec, a, tiles);
  std::uint32_t* const inner = tiles + a_units;
  for_blocks(exec, m, kBlockRows, panels_of(gate),
             [&](std::size_t row, std::size_t rows, std::size_t begin, std::size_t end) {
               alignas(64) float gates[kBlockRows * kPanel];
               alignas(64) float ups[kBlockRows * kPanel];
               for (std::size_t panel = begin; panel < end; ++panel) {
                 add_products(kernels, packed, row, rows, gate, panel, 0, units, gates);
                 add_products(kernels, packed, row, rows, up, panel, 0, units, ups);
                 exec.micro().swiglu_row(gates, ups, rows * kPanel, gates);
                 for (std::size_t r = 0; r < rows; r += kTileRows) {
                   std::uint32_t* to = inner + (row + r) / kTileRows * inner_stride + panel * kTileRows * kTileRows;
                   kernels.pack(std::min(kTileRows, rows - r), kPanel, gates + r * kPanel, kPanel, to);
                 }
               }
             });
  const bool adds = adds_by_tiles(exec);
  const MatrixProduct last{down, adds ? x : space};
  multiply(exec, {inner, inner_stride}, {&last, 1}, adds);
  if (!adds) add(exec, x, space);
}

}  // namespace memlane
