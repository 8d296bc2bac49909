// The simple kernels of the GPU, as the CPU has them.

#include "kernels/layers.h"

#include <cstring>

#include "kernels/cuda/layers.h"
#include "kernels/cuda/matmul.h"
#include "kernels/entries.h"

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

void embed(CudaExec&, View<const std::byte, 1, Cuda> table, DType dtype, std::span<const std::int32_t> ids,
           View<float, 2, Cuda> out) {
  embed(cpu(), table.data(), dtype, ids, on_host(out));
}

void rms_norm(CudaExec&, View<const float, 2, Cuda> x, View<const float, 1, Cuda> weight, float epsilon,
              View<float, 2, Cuda> out) {
  rms_norm(cpu(), on_host(x), on_host(weight), epsilon, on_host(out));
}

void swiglu(CudaExec&, View<const float, 2, Cuda> gate, View<const float, 2, Cuda> up, View<float, 2, Cuda> out) {
  swiglu(cpu(), on_host(gate), on_host(up), on_host(out));
}

void add(CudaExec&, View<float, 2, Cuda> x, View<const float, 2, Cuda> y) {
  add(cpu(), on_host(x), on_host(y));
}

void round_to_bf16(CudaExec&, View<float, 1, Cuda> x) {
  round_to_bf16(cpu(), on_host(x).flat());
}

void rope(CudaExec&, View<const float, 3, Cuda> x, View<const float, 2, Cuda> cosines, View<const float, 2, Cuda> sines,
          std::size_t first, View<float, 3, Cuda> out, std::size_t last) {
  rope(cpu(), on_host(x), on_host(cosines), on_host(sines), first, on_host(out), last);
}

void append_keys(CudaExec&, View<const float, 3, Cuda> keys, CudaHeads panels, std::size_t first) {
  const std::size_t heads = keys.extent(1), head_dim = keys.extent(2);
  for (std::size_t head = 0; head < heads; ++head) {
    write_keys(panels.first + head * panels.stride, first, keys.data() + head * head_dim, heads * head_dim,
               keys.extent(0), head_dim);
  }
}

void append_values(CudaExec&, View<const float, 3, Cuda> values, CudaHeads rows, std::size_t first) {
  const std::size_t heads = values.extent(1), head_dim = values.extent(2);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t d = i % head_dim, head = i / head_dim % heads, token = i / head_dim / heads;
    rows.first[head * rows.stride + (first + token) * head_dim + d] = from_float<BFloat16>(values.data()[i]);
  }
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

void matmul(CudaExec&, View<const float, 2, Cuda> a, const CudaMatrix& w, View<float, 2, Cuda> out) {
  MEMLANE_EXPECTS(a.extent(1) == w.k() && out.extent(0) == a.extent(0) && out.extent(1) == w.n());
  for (std::size_t row = 0; row < a.extent(0); ++row) {
    for (std::size_t column = 0; column < w.n(); ++column) {
      float sum = 0;
      for (std::size_t i = 0; i < w.k(); ++i) {
        const float x = to_float(from_float<BFloat16>(a.data()[row * w.k() + i]));
        sum += x * to_float(w.elements().data()[column * w.k() + i]);
      }
      out.data()[row * w.n() + column] = sum;
    }
  }
}

}  // namespace memlane
