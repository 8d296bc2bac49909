#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "kernels/cuda/internals.h"
#include "kernels/cuda/layers.h"
#include "kernels/cuda/tiles.h"

namespace memlane {

namespace {

constexpr unsigned kThreads = 256;
/// Blocks of a launch over many elements; each thread takes every so-many-th element.
constexpr std::size_t kMostBlocks = 4096;

unsigned blocks_for(std::size_t elements) {
  return static_cast<unsigned>(std::min(kMostBlocks, (elements + kThreads - 1) / kThreads));
}

__device__ std::size_t first_element() {
  return static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ std::size_t element_step() {
  return static_cast<std::size_t>(gridDim.x) * blockDim.x;
}

__device__ float widened(float x) {
  return x;
}
__device__ float widened(__half x) {
  return __half2float(x);
}
__device__ float widened(__nv_bfloat16 x) {
  return __bfloat162float(x);
}

template <class T>
__global__ void embed_kernel(const T* table, const std::int32_t* ids, std::size_t hidden, float* out) {
  const T* row = table + static_cast<std::size_t>(ids[blockIdx.x]) * hidden;
  float* to = out + blockIdx.x * hidden;
  for (std::size_t i = threadIdx.x; i < hidden; i += blockDim.x) to[i] = widened(row[i]);
}

/// The sum of x over the block's kThreads threads, in every thread.
__device__ float block_sum(float x) {
  __shared__ float sums[kThreads / 32];
  for (int mask = 16; mask > 0; mask /= 2) x += __shfl_xor_sync(0xffffffffU, x, mask);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
  __syncthreads();
  float total = 0;
  for (const float sum : sums) total += sum;
  return total;
}

/// One block a row.
__global__ void rms_norm_kernel(const float* x, const float* weight, float epsilon, std::size_t hidden, float* out) {
  const float* row = x + blockIdx.x * hidden;
  float* to = out + blockIdx.x * hidden;
  float squares = 0;
  for (std::size_t i = threadIdx.x; i < hidden; i += kThreads) squares += row[i] * row[i];
  const float mean = block_sum(squares) / static_cast<float>(hidden);
  const float factor = 1.0F / sqrtf(mean + epsilon);
  for (std::size_t i = threadIdx.x; i < hidden; i += kThreads) to[i] = row[i] * factor * weight[i];
}

__global__ void swiglu_kernel(const float* gate, const float* up, std::size_t size, float* out) {
  for (std::size_t i = first_element(); i < size; i += element_step()) {
    const float x = gate[i];
    out[i] = x / (1.0F + expf(-x)) * up[i];
  }
}

__global__ void add_kernel(float* x, const float* y, std::size_t size) {
  for (std::size_t i = first_element(); i < size; i += element_step()) x[i] += y[i];
}

__global__ void round_kernel(float* x, std::size_t size) {
  for (std::size_t i = first_element(); i < size; i += element_step()) {
    x[i] = __bfloat162float(__float2bfloat16_rn(x[i]));
  }
}

__global__ void narrow_kernel(const float* x, std::size_t size, __nv_bfloat16* out) {
  for (std::size_t i = first_element(); i < size; i += element_step()) out[i] = __float2bfloat16_rn(x[i]);
}

/// One thread a pair of elements.
__global__ void rope_kernel(const float* x, const float* cosines, const float* sines, cuda::Number from,
                            std::size_t last, std::size_t heads, std::size_t half, std::size_t pairs, float* out) {
  const std::size_t first = from.get();
  for (std::size_t pair = first_element(); pair < pairs; pair += element_step()) {
    const std::size_t i = pair % half;
    const std::size_t row = pair / half;  // of [tokens, heads]
    const std::size_t position = std::min(first + row / heads, last);
    const float cosine = cosines[position * half + i];
    const float sine = sines[position * half + i];
    const float a = x[row * 2 * half + i];
    const float b = x[row * 2 * half + i + half];
    out[row * 2 * half + i] = a * cosine - b * sine;
    out[row * 2 * half + i + half] = b * cosine + a * sine;
  }
}

/// One thread a unit, two elements of a key. Neighbouring threads write
/// neighbouring entries of a panel, which lie side by side.
__global__ void append_keys_kernel(const float* keys, std::size_t tokens, std::size_t kv_heads, std::size_t units,
                                   cuda::Number from, std::uint32_t* panels, std::size_t stride_units) {
  const std::size_t first = from.get();
  const std::size_t size = tokens * kv_heads * units;
  for (std::size_t i = first_element(); i < size; i += element_step()) {
    const std::size_t token = i % tokens;
    const std::size_t unit = i / tokens % units;
    const std::size_t head = i / tokens / units;
    const float* key = keys + (token * kv_heads + head) * units * 2 + unit * 2;
    const __nv_bfloat162 pair = __floats2bfloat162_rn(key[0], key[1]);
    const std::size_t entry = first + token;
    panels[head * stride_units + cuda::key_unit(entry, unit, units)] = *reinterpret_cast<const std::uint32_t*>(&pair);
  }
}

__global__ void append_values_kernel(const float* values, std::size_t tokens, std::size_t kv_heads,
                                     std::size_t head_dim, cuda::Number from, __nv_bfloat16* rows, std::size_t stride) {
  const std::size_t first = from.get();
  const std::size_t size = tokens * kv_heads * head_dim;
  for (std::size_t i = first_element(); i < size; i += element_step()) {
    const std::size_t d = i % head_dim;
    const std::size_t head = i / head_dim % kv_heads;
    const std::size_t token = i / head_dim / kv_heads;
    rows[head * stride + (first + token) * head_dim + d] = __float2bfloat16_rn(values[i]);
  }
}

__global__ void append_rows_kernel(const float* rows, std::size_t size, std::size_t width, cuda::Number from,
                                   float* to) {
  float* begin = to + from.get() * width;
  for (std::size_t i = first_element(); i < size; i += element_step()) begin[i] = rows[i];
}

}  // namespace

void embed(CudaExec& exec, View<const std::byte, 1, Cuda> table, DType dtype, std::span<const std::int32_t> ids,
           View<float, 2, Cuda> out) {
  if (ids.empty()) return;
  auto* device_ids = reinterpret_cast<std::int32_t*>(exec.scratch(ids.size_bytes()));
  detail::copy_to_device(exec, device_ids, ids.data(), ids.size_bytes());
  embed(exec, table, dtype, View<const std::int32_t, 1, Cuda>(device_ids, {ids.size()}), out);
}

void embed(CudaExec& exec, View<const std::byte, 1, Cuda> table, DType dtype, View<const std::int32_t, 1, Cuda> ids,
           View<float, 2, Cuda> out) {
  const std::size_t hidden = out.extent(1);
  MEMLANE_EXPECTS(out.extent(0) == ids.size());
  if (out.empty()) return;
  const std::int32_t* device_ids = ids.data();
  const auto blocks = static_cast<unsigned>(ids.size());
  const cudaStream_t stream = exec.internals().stream;
  if (dtype == DType::f32) {
    embed_kernel<<<blocks, kThreads, 0, stream>>>(reinterpret_cast<const float*>(table.data()), device_ids, hidden,
                                                  out.data());
  } else if (dtype == DType::f16) {
    embed_kernel<<<blocks, kThreads, 0, stream>>>(reinterpret_cast<const __half*>(table.data()), device_ids, hidden,
                                                  out.data());
  } else {
    embed_kernel<<<blocks, kThreads, 0, stream>>>(reinterpret_cast<const __nv_bfloat16*>(table.data()), device_ids,
                                                  hidden, out.data());
  }
  MEMLANE_LAUNCHED("embed");
}

void rms_norm(CudaExec& exec, View<const float, 2, Cuda> x, View<const float, 1, Cuda> weight, float epsilon,
              View<float, 2, Cuda> out) {
  MEMLANE_EXPECTS(x.extents() == out.extents() && weight.extent(0) == x.extent(1));
  if (x.empty()) return;
  rms_norm_kernel<<<static_cast<unsigned>(x.extent(0)), kThreads, 0, exec.internals().stream>>>(
      x.data(), weight.data(), epsilon, x.extent(1), out.data());
  MEMLANE_LAUNCHED("rms_norm");
}

void swiglu(CudaExec& exec, View<const float, 2, Cuda> gate, View<const float, 2, Cuda> up, View<float, 2, Cuda> out) {
  MEMLANE_EXPECTS(gate.extents() == up.extents() && gate.extents() == out.extents());
  if (gate.empty()) return;
  swiglu_kernel<<<blocks_for(gate.size()), kThreads, 0, exec.internals().stream>>>(gate.data(), up.data(), gate.size(),
                                                                                   out.data());
  MEMLANE_LAUNCHED("swiglu");
}

void add(CudaExec& exec, View<float, 2, Cuda> x, View<const float, 2, Cuda> y) {
  MEMLANE_EXPECTS(x.extents() == y.extents());
  if (x.empty()) return;
  add_kernel<<<blocks_for(x.size()), kThreads, 0, exec.internals().stream>>>(x.data(), y.data(), x.size());
  MEMLANE_LAUNCHED("add");
}

void round_to_bf16(CudaExec& exec, View<float, 1, Cuda> x) {
  if (x.empty()) return;
  round_kernel<<<blocks_for(x.size()), kThreads, 0, exec.internals().stream>>>(x.data(), x.size());
  MEMLANE_LAUNCHED("round_to_bf16");
}

void narrow_to_bf16(CudaExec& exec, View<const float, 1, Cuda> x, View<BFloat16, 1, Cuda> out) {
  MEMLANE_EXPECTS(x.extents() == out.extents());
  if (x.empty()) return;
  narrow_kernel<<<blocks_for(x.size()), kThreads, 0, exec.internals().stream>>>(
      x.data(), x.size(), reinterpret_cast<__nv_bfloat16*>(out.data()));
  MEMLANE_LAUNCHED("narrow_to_bf16");
}

void rope(CudaExec& exec, View<const float, 3, Cuda> x, View<const float, 2, Cuda> cosines,
          View<const float, 2, Cuda> sines, cuda::Position first, View<float, 3, Cuda> out, std::size_t last) {
  const std::size_t half = x.extent(2) / 2;
  MEMLANE_EXPECTS(x.extents() == out.extents() && cosines.extents() == sines.extents() && x.extent(2) % 2 == 0);
  MEMLANE_EXPECTS(cosines.extent(1) == half &&
                  (last < cosines.extent(0) || first.now() + x.extent(0) <= cosines.extent(0)));
  if (x.empty()) return;
  const std::size_t pairs = x.size() / 2;
  rope_kernel<<<blocks_for(pairs), kThreads, 0, exec.internals().stream>>>(
      x.data(), cosines.data(), sines.data(), first.number(), last, x.extent(1), half, pairs, out.data());
  MEMLANE_LAUNCHED("rope");
}

void append_keys(CudaExec& exec, View<const float, 3, Cuda> keys, CudaHeads panels, cuda::Position first) {
  MEMLANE_EXPECTS(keys.extent(2) % 2 == 0 && panels.stride % 2 == 0);
  if (keys.empty()) return;
  append_keys_kernel<<<blocks_for(keys.size() / 2), kThreads, 0, exec.internals().stream>>>(
      keys.data(), keys.extent(0), keys.extent(1), keys.extent(2) / 2, first.number(),
      reinterpret_cast<std::uint32_t*>(panels.first), panels.stride / 2);
  MEMLANE_LAUNCHED("append_keys");
}

void append_values(CudaExec& exec, View<const float, 3, Cuda> values, CudaHeads rows, cuda::Position first) {
  if (values.empty()) return;
  append_values_kernel<<<blocks_for(values.size()), kThreads, 0, exec.internals().stream>>>(
      values.data(), values.extent(0), values.extent(1), values.extent(2), first.number(),
      reinterpret_cast<__nv_bfloat16*>(rows.first), rows.stride);
  MEMLANE_LAUNCHED("append_values");
}

void append_rows(CudaExec& exec, View<const float, 2, Cuda> rows, View<float, 2, Cuda> to, cuda::Position first) {
  MEMLANE_EXPECTS(rows.extent(1) == to.extent(1) && first.now() + rows.extent(0) <= to.extent(0));
  if (rows.empty()) return;
  append_rows_kernel<<<blocks_for(rows.size()), kThreads, 0, exec.internals().stream>>>(
      rows.data(), rows.size(), rows.extent(1), first.number(), to.data());
  MEMLANE_LAUNCHED("append_rows");
}

}  // namespace memlane
