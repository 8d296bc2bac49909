// The simple kernels of the GPU, as the CPU has them.

#include "kernels/layers.h"

#include <cstring>

#include "kernels/cuda/layers.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/quantised_block.h"
#include "kernels/entries.h"
#include "tests/emulated_cuda/device.h"
#include "tests/kernels/emulated_warp.h"

namespace memlane {

namespace {

/// A view of the emulated GPU's memory for kernels of the host.
template <class T, int Rank>
View<T, Rank> on_host(View<T, Rank, Cuda> view) {
  return {view.data(), view.extents()};
}

CpuExec& cpu() {
  static CpuExec exec(1, InstructionSet::portable);
  return exec;
}

}  // namespace

using testing::queue;

void embed(CudaExec& exec, View<const std::byte, 1, Cuda> table, DType dtype, std::span<const std::int32_t> ids,
           View<float, 2, Cuda> out) {
  auto* on_device = reinterpret_cast<std::int32_t*>(exec.scratch(ids.size_bytes()));
  detail::copy_to_device(exec, on_device, ids.data(), ids.size_bytes());
  embed(exec, table, dtype, View<const std::int32_t, 1, Cuda>(on_device, {ids.size()}), out);
}

void embed(CudaExec& exec, View<const std::byte, 1, Cuda> table, DType dtype, View<const std::int32_t, 1, Cuda> ids,
           View<float, 2, Cuda> out) {
  queue(exec, [=] { embed(cpu(), table.data(), dtype, std::span(ids.data(), ids.size()), on_host(out)); });
}

void rms_norm(CudaExec& exec, View<const float, 2, Cuda> x, View<const float, 1, Cuda> weight, float epsilon,
              View<float, 2, Cuda> out) {
  queue(exec, [=] { rms_norm(cpu(), on_host(x), on_host(weight), epsilon, on_host(out)); });
}

void swiglu(CudaExec& exec, View<const float, 2, Cuda> gate, View<const float, 2, Cuda> up, View<float, 2, Cuda> out) {
  queue(exec, [=] { swiglu(cpu(), on_host(gate), on_host(up), on_host(out)); });
}

void add(CudaExec& exec, View<float, 2, Cuda> x, View<const float, 2, Cuda> y) {
  queue(exec, [=] { add(cpu(), on_host(x), on_host(y)); });
}

void round_to_bf16(CudaExec& exec, View<float, 1, Cuda> x) {
  queue(exec, [=] { round_to_bf16(cpu(), on_host(x).flat()); });
}

void rope(CudaExec& exec, View<const float, 3, Cuda> x, View<const float, 2, Cuda> cosines,
          View<const float, 2, Cuda> sines, cuda::Position first, View<float, 3, Cuda> out, std::size_t last) {
  queue(exec, [=, from = first.number()] {
    rope(cpu(), on_host(x), on_host(cosines), on_host(sines), from.get(), on_host(out), last);
  });
}

void append_keys(CudaExec& exec, View<const float, 3, Cuda> keys, CudaHeads panels, cuda::Position first) {
  const std::size_t heads = keys.extent(1), head_dim = keys.extent(2);
  queue(exec, [=, from = first.number()] {
    for (std::size_t head = 0; head < heads; ++head) {
      write_keys(panels.first + head * panels.stride, from.get(), keys.data() + head * head_dim, heads * head_dim,
                 keys.extent(0), head_dim);
    }
  });
}

void append_values(CudaExec& exec, View<const float, 3, Cuda> values, CudaHeads rows, cuda::Position first) {
  const std::size_t heads = values.extent(1), head_dim = values.extent(2);
  queue(exec, [=, from = first.number()] {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::size_t d = i % head_dim, head = i / head_dim % heads, token = i / head_dim / heads;
      rows.first[head * rows.stride + (from.get() + token) * head_dim + d] = from_float<BFloat16>(values.data()[i]);
    }
  });
}

void append_rows(CudaExec& exec, View<const float, 2, Cuda> rows, View<float, 2, Cuda> to, cuda::Position first) {
  MEMLANE_EXPECTS(rows.extent(1) == to.extent(1) && first.now() + rows.extent(0) <= to.extent(0));
  queue(exec,
        [=, from = first.number()] { std::copy_n(rows.data(), rows.size(), to.data() + from.get() * rows.extent(1)); });
}

CudaMatrix::CudaMatrix(CudaExec&, const std::byte* rows, DType source, std::size_t n, std::size_t k)
    : n_(n), k_(k), elements_(n * k) {
  with_type(source, [&](auto element) {
    for (std::size_t i = 0; i < n * k; ++i) {
      std::memcpy(&element, rows + i * sizeof element, sizeof element);
      elements_.data()[i] = from_float<BFloat16>(to_float(element));
    }
  });
}

namespace {

/// The kernels for quantised weights, emulated as kernels/cuda/matmul.cu launches them. Rows one by one.
template <WeightFormat Format>
void multiply_quantised_rows(CudaExec& exec, View<const float, 2, Cuda> a, const CudaMatrix& w,
                             View<float, 2, Cuda> out) {
  for (std::size_t row = 0; row < a.extent(0); ++row) {
    const cuda::QuantisedTask task{a.data() + row * w.k(), w.panels(), static_cast<std::uint32_t>(w.n()),
                                   static_cast<std::uint32_t>(w.k()), out.data() + row * w.n()};
    queue(exec, [task] {
      for (std::uint32_t panel = 0; panel * kPanelRows < task.n; ++panel) {
        testing::run_block(cuda::kQuantisedWarps, cuda::quantised_shared_bytes(1, task.k),
                           [&](testing::EmulatedWarp& warp, std::uint32_t* shared) {
                             cuda::quantised_rows_block<Format, 1>(warp, task, panel, shared);
                           });
      }
    });
  }
}

template <WeightFormat Format>
void multiply_quantised(CudaExec& exec, View<const float, 2, Cuda> a, const CudaMatrix& w, View<float, 2, Cuda> out) {
  const std::size_t n = w.n(), k = w.k();
  if (a.extent(0) <= kQuantisedFewRows || k % 8 != 0) return multiply_quantised_rows<Format>(exec, a, w, out);
  const std::size_t at_once = dequantised_rows(n, k);
  MEMLANE_EXPECTS(at_once >= n);
  auto* wide = reinterpret_cast<BFloat16*>(exec.scratch((at_once + a.extent(0)) * k * sizeof(BFloat16)));
  testing::run_block(1, 0, [&](testing::EmulatedWarp& warp, std::uint32_t*) {
    for (std::size_t item = 0; item < (n + kPanelRows - 1) / kPanelRows * group_count(k); ++item) {
      const std::size_t panel = item / group_count(k), first = panel * kPanelRows;
      cuda::dequantise_group<Format>(warp, w.panels() + panel * quantised_panel_bytes(Format, k),
                                     static_cast<std::uint32_t>(k), static_cast<std::uint32_t>(item % group_count(k)),
                                     static_cast<std::uint32_t>(n - first),
                                     reinterpret_cast<std::uint16_t*>(wide + first * k));
    }
  });
  const CudaMatrix dequantised(exec, reinterpret_cast<const std::byte*>(wide), DType::bf16, n, k);
  matmul(exec, a, dequantised, out);
}

}  // namespace

void matmul(CudaExec& exec, View<const float, 2, Cuda> a, const CudaMatrix& w, View<float, 2, Cuda> out) {
  MEMLANE_EXPECTS(a.extent(1) == w.k() && out.extent(0) == a.extent(0) && out.extent(1) == w.n());
  if (w.format() == WeightFormat::int8) return multiply_quantised<WeightFormat::int8>(exec, a, w, out);
  if (w.format() == WeightFormat::int4) return multiply_quantised<WeightFormat::int4>(exec, a, w, out);
  queue(exec, [=, elements = w.elements()] {
    const std::size_t n = elements.extent(0), k = elements.extent(1);
    for (std::size_t row = 0; row < a.extent(0); ++row) {
      for (std::size_t column = 0; column < n; ++column) {
        float sum = 0;
        for (std::size_t i = 0; i < k; ++i) {
          const float x = to_float(from_float<BFloat16>(a.data()[row * k + i]));
          sum += x * to_float(elements.data()[column * k + i]);
        }
        out.data()[row * n + column] = sum;
      }
    }
  });
}

}  // namespace memlane
