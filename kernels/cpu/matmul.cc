#include "kernels/matmul.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "kernels/cpu/quantise_weights.h"
#include "kernels/cpu/quantised_layout.h"
#include "kernels/cpu/quantised_matmul.h"
#include "kernels/cpu/tile_matmul.h"
#include "kernels/layers.h"

namespace memlane {

namespace {

constexpr std::size_t kPanel = 32;
constexpr std::size_t kBlockRows = 224;  // rows of a per item: sixteen register tiles of the widest instruction set
constexpr std::size_t kFewRows = 14;     // up to so many are read where they are

/// Units of k per pass. A panel's piece is read again for every `product_rows` rows: where these are many, from the
/// second-level cache, loading and storing sums costs more than a smaller piece would save (measured on an EPYC).
std::size_t pass_units(const CpuExec& exec) {
  return exec.micro().product_rows >= kFewRows ? 2048 : 512;
}
/// Of copied rows, so that they are no power of two apart.
std::size_t copied_stride(std::size_t pass) {
  return pass + 16;
}

template <class T>
T element(const std::byte* rows, std::size_t index) {
  T value;
  std::memcpy(&value, rows + index * sizeof(T), sizeof(T));
  return value;
}

/// Packs panel `panel` of W.
template <class Source, class Element>
void pack_panel(const std::byte* rows, std::size_t n, std::size_t k, std::size_t panel, Element* out) {
  constexpr std::size_t unit = 4 / sizeof(Element);
  const std::size_t units = (k + unit - 1) / unit;
  std::memset(static_cast<void*>(out), 0, units * kPanel * 4);
  for (std::size_t row = panel * kPanel; row < std::min(n, (panel + 1) * kPanel); ++row) {
    for (std::size_t i = 0; i < k; ++i) {
      const float value = to_float(element<Source>(rows, row * k + i));
      out[(i / unit * kPanel + row % kPanel) * unit + i % unit] = from_float<Element>(value);
    }
  }
}

/// Rows of a, [m, units].
template <class A>
struct Rows {
  const A* data;
  std::size_t stride;  // elements from one row to the next

  const A* at(std::size_t row, std::size_t unit) const { return data + row * stride + unit; }
};

/// One block of the product: rows [row, row + rows) of a, panels [begin, end) of w. copied: scratch for the rows' part
/// of a pass, which would otherwise often be a power of two apart and compete for the same lines of the cache.
template <class Gemm, class A>
void multiply_block(Gemm gemm, const Rows<A>& a, std::size_t row, std::size_t rows, const PackedMatrix& w,
                    std::size_t begin, std::size_t end, std::size_t pass, A* copied, View<float, 2> out) {
  alignas(64) float edge[kBlockRows * kPanel];
  const std::size_t units = w.k_units();
  const std::size_t n = w.n();
  const std::size_t whole_end = std::min(end, n / kPanel);
  for (std::size_t unit = 0; unit < units; unit += pass) {
    const std::size_t count = std::min(pass, units - unit);
    Rows<A> part = {a.at(row, unit), a.stride};
    if (rows > kFewRows) {
      for (std::size_t r = 0; r < rows; ++r) std::copy_n(part.at(r, 0), count, copied + r * copied_stride(pass));
      part = {copied, copied_stride(pass)};
    }
    for (std::size_t panel = begin; panel < end; ++panel) {
      const auto* b = reinterpret_cast<const A*>(w.panel(panel) + unit * kPanel);
      const bool whole = panel < whole_end;
      float* c = whole ? out.data() + row * n + panel * kPanel : edge;
      gemm(rows, count, part.data, part.stride, b, c, whole ? n : kPanel, unit > 0);
    }
  }
  if (whole_end == end) return;
  for (std::size_t r = 0; r < rows; ++r) {
    std::copy_n(edge + r * kPanel, n % kPanel, out.data() + (row + r) * n + whole_end * kPanel);
  }
}

/// Panels of an item: enough items for every thread to finish at about the same time, few enough for each to stream a
/// good stretch of weights.
std::size_t panels_of_item(const CpuExec& exec, std::size_t panels, std::size_t row_blocks) {
  const std::size_t wanted_chunks = std::max<std::size_t>(1, 8 * exec.threads() / row_blocks);
  return std::clamp<std::size_t>(panels / wanted_chunks, 1, 16);
}

template <class Gemm, class A>
void multiply(CpuExec& exec, Gemm gemm, const Rows<A>& a, const PackedMatrix& w, View<float, 2> out) {
  const std::size_t m = out.extent(0);
  const std::size_t panels = (w.n() + kPanel - 1) / kPanel;
  const std::size_t row_blocks = (m + kBlockRows - 1) / kBlockRows;
  const std::size_t chunk = panels_of_item(exec, panels, row_blocks);
  const std::size_t chunks = (panels + chunk - 1) / chunk, pass = std::min(pass_units(exec), w.k_units());
  exec.pool().run(row_blocks * chunks, [&](std::size_t item, std::size_t worker) {
    const std::size_t row = item / chunks * kBlockRows;
    const std::size_t begin = item % chunks * chunk;
    auto* copied = reinterpret_cast<A*>(exec.worker_scratch(worker, kBlockRows * copied_stride(pass) * sizeof(A)));
    multiply_block(gemm, a, row, std::min(kBlockRows, m - row), w, begin, std::min(panels, begin + chunk), pass, copied,
                   out);
  });
}

void multiply_bf16(CpuExec& exec, View<const float, 2> a, const PackedMatrix& w, View<float, 2> out) {
  const std::size_t m = a.extent(0), units = w.k_units();
  auto* narrow = reinterpret_cast<std::uint32_t*>(exec.shared_scratch(m * units * 4));
  exec.pool().run((m + 15) / 16, [&](std::size_t item, std::size_t) {
    for (std::size_t row = item * 16; row < std::min(m, item * 16 + 16); ++row) {
      if (w.k() % 2 != 0) narrow[(row + 1) * units - 1] = 0;
      exec.micro().narrow_bf16(a.data() + row * w.k(), w.k(), reinterpret_cast<std::uint16_t*>(narrow + row * units));
    }
  });
  multiply(exec, exec.micro().gemm_bf16, Rows<std::uint32_t>{narrow, units}, w, out);
}

}  // namespace

PackedMatrix::PackedMatrix(CpuExec& exec, const std::byte* rows, DType source, std::size_t n, std::size_t k,
                           WeightFormat format)
    : n_(n),
      k_(k),
      format_(format),
      panel_units_(packed_bytes(kPanel, k, format) / 4),
      panels_(packed_bytes(n, k, format) / 4) {
  std::atomic<bool> finite = true;
  exec.pool().run((n + kPanel - 1) / kPanel, [&](std::size_t panel, std::size_t) {
    std::uint32_t* out = panels_.data() + panel * panel_units_;
    if (is_quantised(format)) {
      const std::byte* first = rows + panel * kPanel * k * size_of(source);
      const std::size_t count = std::min(kPanel, n - panel * kPanel);
      if (!quantise_panel(first, source, count, k, format, reinterpret_cast<std::byte*>(out))) finite = false;
      return;
    }
    with_type(source, [&](auto type) {
      using Source = decltype(type);
      if (format == WeightFormat::f32) {
        pack_panel<Source>(rows, n, k, panel, reinterpret_cast<float*>(out));
      } else {
        pack_panel<Source>(rows, n, k, panel, reinterpret_cast<BFloat16*>(out));
      }
    });
  });
  if (!finite) {
    input_error(
        "a weight matrix: expected finite numbers, which alone can be {}, found NaN or infinity; repair the "
        "checkpoint, or try --weights bfloat16",
        name_of(format));
  }
}

void PackedMatrix::read_row(std::size_t row, std::span<float> out) const {
  MEMLANE_EXPECTS(row < n_ && out.size() == k_);
  const std::uint32_t* from = panel(row / kPanel);
  const std::size_t place = row % kPanel;
  if (is_quantised(format_)) {
    return read_quantised_row(reinterpret_cast<const std::byte*>(from), format_, place, k_, out.data());
  }
  for (std::size_t i = 0; i < k_; ++i) {
    if (format_ == WeightFormat::f32) {
      out[i] = reinterpret_cast<const float*>(from)[i * kPanel + place];
    } else {
      out[i] = to_float(reinterpret_cast<const BFloat16*>(from)[(i / 2 * kPanel + place) * 2 + i % 2]);
    }
  }
}

std::size_t PackedMatrix::packed_bytes(std::size_t n, std::size_t k, WeightFormat format) {
  const std::size_t panels = (n + kPanel - 1) / kPanel;
  if (is_quantised(format)) return panels * quantised_panel_bytes(format, k);
  return panels * kPanel * 4 * (format == WeightFormat::f32 ? k : (k + 1) / 2);
}

void matmul(CpuExec& exec, const InputRows& a, const PackedMatrix& w, View<float, 2> out) {
  matmul(exec, a, {{w, out}});
}

void matmul_add(CpuExec& exec, const InputRows& a, const PackedMatrix& w, View<float, 2> x, View<float, 2> space) {
  MEMLANE_EXPECTS(a.extent(1) == w.k() && x.extents() == space.extents() && x.extent(0) == a.extent(0) &&
                  x.extent(1) == w.n());
  if (a.extent(0) == 0) return;
  MEMLANE_EXPECTS(x.data() != space.data() && x.data() != a.data() && space.data() != a.data());
  const bool by_tiles = w.format() == WeightFormat::bf16 && adds_by_tiles(exec);
  if (!by_tiles && !is_quantised(w.format())) {
    matmul(exec, a, w, space);
    return add(exec, x, space);
  }
  const StageScope stage(exec.stage_clock(), Stage::matmul);
  if (by_tiles) return matmul_add_by_tiles(exec, a, w, x);
  quantised_matmul_add(exec, a, w, x);
}

void matmul(CpuExec& exec, const InputRows& a, std::initializer_list<MatrixProduct> products) {
  const std::size_t m = a.extent(0);
  bool all_by_tiles = exec.micro().tiles != nullptr, all_quantised = true;
  for (const auto& [w, out] : products) {
    MEMLANE_EXPECTS(a.extent(1) == w.k() && out.extent(0) == m && out.extent(1) == w.n());
    all_by_tiles = all_by_tiles && w.format() == WeightFormat::bf16;
    all_quantised = all_quantised && is_quantised(w.format());
  }
  if (m == 0) return;
  const StageScope stage(exec.stage_clock(), Stage::matmul);
  // The input is rounded once for all.
  if (all_by_tiles) return matmul_by_tiles(exec, a, {products.begin(), products.size()});
  if (all_quantised) return quantised_matmul(exec, a, {products.begin(), products.size()});
  const View<const float, 2> rows = a.all(exec);
  for (const MatrixProduct& product : products) {
    const auto& [w, out] = product;
    if (is_quantised(w.format())) {
      quantised_matmul(exec, rows, {&product, 1});
    } else if (w.format() == WeightFormat::f32) {
      multiply(exec, exec.micro().gemm_f32, Rows<float>{rows.data(), w.k()}, w, out);
    } else if (exec.micro().tiles != nullptr) {
      matmul_by_tiles(exec, rows, {&product, 1});
    } else {
      multiply_bf16(exec, rows, w, out);
    }
  }
}

}  // namespace memlane
