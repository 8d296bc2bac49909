#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <vector>

#include "kernels/cuda/internals.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/layers.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/quantised_block.h"

namespace memlane {

/// out^T = W a^T in cuBLASLt's column-major terms, where our row-major matrices are their own transposes: W is [k, n]
/// and transposed, a^T is [k, m], out^T is [n, m].
struct MatmulPlan {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t w = nullptr, a = nullptr, out = nullptr;
  cublasLtMatmulAlgo_t algorithm{};

  MatmulPlan() = default;
  MatmulPlan(const MatmulPlan&) = delete;
  MatmulPlan& operator=(const MatmulPlan&) = delete;
  ~MatmulPlan() {
    if (out != nullptr) cublasLtMatrixLayoutDestroy(out);
    if (a != nullptr) cublasLtMatrixLayoutDestroy(a);
    if (w != nullptr) cublasLtMatrixLayoutDestroy(w);
    if (product != nullptr) cublasLtMatmulDescDestroy(product);
  }
};

namespace {

constexpr unsigned kWarps = 8;                // of a block of the kernel for few rows: each makes one output
constexpr std::size_t kFewRows = 4;           // rows of a that it takes
constexpr std::size_t kFewBytes = 48 * 1024;  // of a that fit in its shared memory

constexpr std::uint32_t kOutAlignment = 16;  // bytes, of what cuBLASLt writes

struct Preference {
  cublasLtMatmulPreference_t handle = nullptr;
  ~Preference() {
    if (handle != nullptr) cublasLtMatmulPreferenceDestroy(handle);
  }
};

/// out_stride: elements from one row of out to the next.
std::shared_ptr<MatmulPlan> make_plan(CudaExec::Internals& in, std::size_t m, std::size_t n, std::size_t k,
                                      std::size_t out_stride) {
  auto plan = std::make_shared<MatmulPlan>();
  MEMLANE_CUDA(cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t transposed = CUBLAS_OP_T, as_is = CUBLAS_OP_N;
  MEMLANE_CUDA(
      cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
  MEMLANE_CUDA(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSB, &as_is, sizeof as_is));
  const auto leading = static_cast<std::int64_t>(k);
  MEMLANE_CUDA(cublasLtMatrixLayoutCreate(&plan->w, CUDA_R_16BF, k, n, leading));
  MEMLANE_CUDA(cublasLtMatrixLayoutCreate(&plan->a, CUDA_R_16BF, k, m, leading));
  MEMLANE_CUDA(cublasLtMatrixLayoutCreate(&plan->out, CUDA_R_32F, n, m, static_cast<std::int64_t>(out_stride)));

  Preference preference;
  MEMLANE_CUDA(cublasLtMatmulPreferenceCreate(&preference.handle));
  const std::size_t workspace = in.blas_workspace.size();
  MEMLANE_CUDA(cublasLtMatmulPreferenceSetAttribute(preference.handle, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                    &workspace, sizeof workspace));
  const std::uint32_t alignment = kOutAlignment;
  for (const auto side : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    MEMLANE_CUDA(cublasLtMatmulPreferenceSetAttribute(preference.handle, side, &alignment, sizeof alignment));
  }
  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;
  MEMLANE_CUDA(cublasLtMatmulAlgoGetHeuristic(in.blas, plan->product, plan->w, plan->a, plan->out, plan->out,
                                              preference.handle, 1, &best, &found));
  if (found == 0) MEMLANE_CUDA(CUBLAS_STATUS_NOT_SUPPORTED);
  plan->algorithm = best.algo;
  return plan;
}

__device__ void add_products(uint4 x, uint4 y, float& sum) {
  const std::uint32_t xs[4] = {x.x, x.y, x.z, x.w};
  const std::uint32_t ys[4] = {y.x, y.y, y.z, y.w};
  for (int i = 0; i < 4; ++i) {  // two bfloat16, each the upper half of a float
    sum = fmaf(__uint_as_float(xs[i] << 16), __uint_as_float(ys[i] << 16), sum);
    sum = fmaf(__uint_as_float(xs[i] & 0xffff0000U), __uint_as_float(ys[i] & 0xffff0000U), sum);
  }
}

/// out[kRows, n] = a[kRows, k] W^T; k is a multiple of 8. One warp makes one column of out from one row of W.
template <int kRows>
__global__ void few_rows_kernel(const float* a, const uint4* w, std::size_t n, std::size_t k, float* out) {
  extern __shared__ uint4 rows[];  // a, rounded: [kRows][k / 8]
  auto* elements = reinterpret_cast<__nv_bfloat16*>(rows);
  for (std::size_t i = threadIdx.x; i < kRows * k; i += kWarps * 32) elements[i] = __float2bfloat16_rn(a[i]);
  __syncthreads();
  const std::size_t column = static_cast<std::size_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (column >= n) return;
  const unsigned lane = threadIdx.x % 32;
  const auto pieces = static_cast<unsigned>(k / 8);
  const uint4* from = w + column * pieces;
  float sums[kRows] = {};
#pragma unroll 4
  for (unsigned i = lane; i < pieces; i += 32) {
    const uint4 weights = __ldg(from + i);
#pragma unroll
    for (int row = 0; row < kRows; ++row) add_products(weights, rows[row * pieces + i], sums[row]);
  }
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    for (int mask = 16; mask > 0; mask /= 2) sums[row] += __shfl_xor_sync(0xffffffffU, sums[row], mask);
    if (lane == 0) out[row * n + column] = sums[row];
  }
}

template <int kRows>
void multiply_few_rows(CudaExec& exec, View<const float, 2, Cuda> a, const CudaMatrix& w, View<float, 2, Cuda> out) {
  const auto blocks = static_cast<unsigned>((w.n() + kWarps - 1) / kWarps);
  few_rows_kernel<kRows><<<blocks, kWarps * 32, kRows * w.k() * sizeof(BFloat16), exec.internals().stream>>>(
      a.data(), reinterpret_cast<const uint4*>(w.elements().data()), w.n(), w.k(), out.data());
  MEMLANE_LAUNCHED("matmul of few rows");
}

/// out[row, column], one warp each, for a k that 16-byte loads do not divide: no model has such.
__global__ void any_width_kernel(const float* a, const __nv_bfloat16* w, std::size_t n, std::size_t k, float* out) {
  const std::size_t column = static_cast<std::size_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (column >= n) return;
  const std::size_t row = blockIdx.y;
  float sum = 0;
  for (std::size_t i = threadIdx.x % 32; i < k; i += 32) {
    const float x = __bfloat162float(__float2bfloat16_rn(a[row * k + i]));
    sum = fmaf(x, __bfloat162float(w[column * k + i]), sum);
  }
  for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, mask);
  if (threadIdx.x % 32 == 0) out[row * n + column] = sum;
}

void multiply_any_width(CudaExec& exec, View<const float, 2, Cuda> a, const CudaMatrix& w, View<float, 2, Cuda> out) {
  constexpr std::size_t kMostRows = 65535;  // blocks of a launch in that direction
  const auto blocks = static_cast<unsigned>((w.n() + kWarps - 1) / kWarps);
  for (std::size_t row = 0; row < a.extent(0); row += kMostRows) {
    const auto rows = static_cast<unsigned>(std::min(kMostRows, a.extent(0) - row));
    any_width_kernel<<<dim3(blocks, rows), kWarps * 32, 0, exec.internals().stream>>>(
        a.data() + row * w.k(), reinterpret_cast<const __nv_bfloat16*>(w.elements().data()), w.n(), w.k(),
        out.data() + row * w.n());
    MEMLANE_LAUNCHED("matmul of any width");
  }
}

/// out = a W^T of bfloat16 arrays on the device: a [m, k], w [n, k].
struct NarrowProduct {
  const BFloat16* a;
  const BFloat16* w;
  std::size_t m, n, k;
};

/// out: [m, n], rows out_stride elements apart.
void multiply_by_blas(CudaExec& exec, const NarrowProduct& product, float* out, std::size_t out_stride) {
  MEMLANE_EXPECTS(reinterpret_cast<std::uintptr_t>(out) % kOutAlignment == 0);
  CudaExec::Internals& in = exec.internals();
  const auto& [a, w, m, n, k] = product;
  std::shared_ptr<MatmulPlan>& plan = in.plans[{m, n, k, out_stride}];
  if (plan == nullptr) plan = make_plan(in, m, n, k, out_stride);
  const float one = 1, zero = 0;
  MEMLANE_CUDA(cublasLtMatmul(in.blas, plan->product, &one, w, plan->w, a, plan->a, &zero, out, plan->out, out,
                              plan->out, &plan->algorithm, in.blas_workspace.data(), in.blas_workspace.size(),
                              in.stream));
}

template <WeightFormat Format, int Rows>
__global__ void __launch_bounds__(cuda::kQuantisedWarps * 32) quantised_rows_kernel(const cuda::QuantisedTask task) {
  extern __shared__ __align__(16) std::uint32_t words[];
  cuda::GpuWarp warp;
  cuda::quantised_rows_block<Format, Rows>(warp, task, blockIdx.x, words);
}

template <WeightFormat Format, int Rows>
void launch_quantised_rows(CudaExec& exec, const cuda::QuantisedTask& task) {
  const std::size_t shared = cuda::quantised_shared_bytes(Rows, task.k);
  cuda::allow_shared(exec, quantised_rows_kernel<Format, Rows>, shared);
  const auto panels = static_cast<unsigned>((task.n + kPanelRows - 1) / kPanelRows);
  quantised_rows_kernel<Format, Rows><<<panels, cuda::kQuantisedWarps * 32, shared, exec.internals().stream>>>(task);
  MEMLANE_LAUNCHED("quantised matmul of few rows");
}

/// Rows of a, four at a time as long as their shared memory is what every kernel may have.
template <WeightFormat Format>
void multiply_quantised_rows(CudaExec& exec, View<const float, 2, Cuda> a, const CudaMatrix& w,
                             View<float, 2, Cuda> out) {
  const std::size_t at_once = std::clamp<std::size_t>(kFewBytes / cuda::quantised_shared_bytes(1, w.k()), 1, 4);
  for (std::size_t row = 0; row < a.extent(0);) {
    const std::size_t rows = std::min(at_once, a.extent(0) - row);
    const cuda::QuantisedTask task{a.data() + row * w.k(), w.panels(), static_cast<std::uint32_t>(w.n()),
                                   static_cast<std::uint32_t>(w.k()), out.data() + row * w.n()};
    if (rows == 1) launch_quantised_rows<Format, 1>(exec, task);
    if (rows == 2) launch_quantised_rows<Format, 2>(exec, task);
    if (rows == 3) launch_quantised_rows<Format, 3>(exec, task);
    if (rows == 4) launch_quantised_rows<Format, 4>(exec, task);
    row += rows;
  }
}

constexpr unsigned kDequantisingWarps = 4;  // of a block

/// Rows [32 first_panel, 32 first_panel + rows) of W; one warp a group of a panel.
template <WeightFormat Format>
__global__ void __launch_bounds__(kDequantisingWarps * 32)
    dequantise_kernel(const std::byte* panels, std::uint32_t k, std::uint32_t rows, std::uint16_t* out) {
  const auto groups = static_cast<std::uint32_t>(group_count(k));
  const std::uint32_t item = blockIdx.x * kDequantisingWarps + threadIdx.x / 32;
  const std::uint32_t panel = item / groups, first = panel * static_cast<std::uint32_t>(kPanelRows);
  if (first >= rows) return;
  cuda::GpuWarp warp;
  cuda::dequantise_group<Format>(warp, panels + panel * quantised_panel_bytes(Format, k), k, item % groups,
                                 rows - first, out + static_cast<std::size_t>(first) * k);
}

template <WeightFormat Format>
void dequantise(CudaExec& exec, const CudaMatrix& w, std::size_t first, std::size_t rows, BFloat16* out) {
  const std::size_t items = (rows + kPanelRows - 1) / kPanelRows * group_count(w.k());
  const auto blocks = static_cast<unsigned>((items + kDequantisingWarps - 1) / kDequantisingWarps);
  dequantise_kernel<Format><<<blocks, kDequantisingWarps * 32, 0, exec.internals().stream>>>(
      w.panels() + first / kPanelRows * quantised_panel_bytes(Format, w.k()), static_cast<std::uint32_t>(w.k()),
      static_cast<std::uint32_t>(rows), reinterpret_cast<std::uint16_t*>(out));
  MEMLANE_LAUNCHED("dequantisation of weights");
}

/// Some rows of W at a time become bfloat16 in scratch space and make their columns of out. k: a multiple of 8.
void multiply_dequantised(CudaExec& exec, View<const float, 2, Cuda> a, const CudaMatrix& w, View<float, 2, Cuda> out) {
  const std::size_t m = a.extent(0), n = w.n(), k = w.k(), at_once = dequantised_rows(n, k);
  auto* wide = reinterpret_cast<BFloat16*>(exec.scratch((at_once + m) * k * sizeof(BFloat16)));
  BFloat16* narrow = wide + at_once * k;  // behind whole panels, k a multiple of 8: aligned to 256 bytes, as w is
  narrow_to_bf16(exec, a.reshape<1>({m * k}), View<BFloat16, 1, Cuda>(narrow, {m * k}));
  for (std::size_t first = 0; first < n; first += at_once) {
    const std::size_t rows = std::min(at_once, n - first);
    if (w.format() == WeightFormat::int8) dequantise<WeightFormat::int8>(exec, w, first, rows, wide);
    if (w.format() == WeightFormat::int4) dequantise<WeightFormat::int4>(exec, w, first, rows, wide);
    multiply_by_blas(exec, {narrow, wide, m, rows, k}, out.data() + first, n);
  }
}

void multiply_quantised(CudaExec& exec, View<const float, 2, Cuda> a, const CudaMatrix& w, View<float, 2, Cuda> out) {
  const bool few = a.extent(0) <= kQuantisedFewRows && cuda::quantised_shared_bytes(1, w.k()) <= exec.shared_bytes();
  if (!few && w.k() % 8 == 0) return multiply_dequantised(exec, a, w, out);
  if (w.format() == WeightFormat::int8) return multiply_quantised_rows<WeightFormat::int8>(exec, a, w, out);
  multiply_quantised_rows<WeightFormat::int4>(exec, a, w, out);
}

/// One element of `source` to bfloat16, by way of float32 as on the CPU.
template <class Source>
__global__ void convert_kernel(const Source* from, std::size_t size, __nv_bfloat16* to) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < size) to[i] = __float2bfloat16_rn(static_cast<float>(from[i]));
}

template <class Source>
void convert(CudaExec& exec, const std::byte* from, std::size_t size, BFloat16* to) {
  constexpr unsigned kThreads = 256;
  const auto blocks = static_cast<unsigned>((size + kThreads - 1) / kThreads);
  convert_kernel<<<blocks, kThreads, 0, exec.internals().stream>>>(reinterpret_cast<const Source*>(from), size,
                                                                   reinterpret_cast<__nv_bfloat16*>(to));
  MEMLANE_LAUNCHED("conversion of weights");
}

}  // namespace

CudaMatrix::CudaMatrix(CudaExec& exec, const std::byte* rows, DType source, std::size_t n, std::size_t k)
    : n_(n), k_(k), elements_(n * k) {
  if (source == DType::bf16) {
    detail::copy_to_device(exec, elements_.data(), rows, elements_.bytes());
    exec.synchronize();
    return;
  }
  constexpr std::size_t kPiece = std::size_t{8} << 20;  // elements that are converted at once
  for (std::size_t begin = 0; begin < elements_.size(); begin += kPiece) {
    const std::size_t size = std::min(kPiece, elements_.size() - begin);
    std::byte* staged = exec.scratch(size * size_of(source));
    detail::copy_to_device(exec, staged, rows + begin * size_of(source), size * size_of(source));
    if (source == DType::f32) convert<float>(exec, staged, size, elements_.data() + begin);
    if (source == DType::f16) convert<__half>(exec, staged, size, elements_.data() + begin);
  }
  exec.synchronize();
}

void matmul(CudaExec& exec, View<const float, 2, Cuda> a, const CudaMatrix& w, View<float, 2, Cuda> out) {
  const std::size_t m = a.extent(0), n = w.n(), k = w.k();
  MEMLANE_EXPECTS(a.extent(1) == k && out.extent(0) == m && out.extent(1) == n);
  if (m == 0) return;
  if (is_quantised(w.format())) return multiply_quantised(exec, a, w, out);
  if (k % 8 != 0) return multiply_any_width(exec, a, w, out);
  if (m <= kFewRows && m * k * sizeof(BFloat16) <= kFewBytes) {
    if (m == 1) return multiply_few_rows<1>(exec, a, w, out);
    if (m == 2) return multiply_few_rows<2>(exec, a, w, out);
    if (m == 3) return multiply_few_rows<3>(exec, a, w, out);
    return multiply_few_rows<4>(exec, a, w, out);
  }
  auto* narrow = reinterpret_cast<BFloat16*>(exec.scratch(m * k * sizeof(BFloat16)));
  narrow_to_bf16(exec, a.reshape<1>({m * k}), View<BFloat16, 1, Cuda>(narrow, {m * k}));
  multiply_by_blas(exec, {narrow, w.elements().data(), m, n, k}, out.data(), n);
}

}  // namespace memlane
