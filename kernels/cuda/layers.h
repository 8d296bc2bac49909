#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "kernels/cuda/exec.h"
#include "kernels/cuda/position.h"
#include "kernels/scalar.h"

namespace memlane {

/// The kernels of kernels/layers.h on the GPU, under the same contracts.

/// table: [vocab * hidden * size_of(dtype)] on the device; ids: on the host.
void embed(CudaExec& exec, View<const std::byte, 1, Cuda> table, DType dtype, std::span<const std::int32_t> ids,
           View<float, 2, Cuda> out);
/// The same with ids on the device.
void embed(CudaExec& exec, View<const std::byte, 1, Cuda> table, DType dtype, View<const std::int32_t, 1, Cuda> ids,
           View<float, 2, Cuda> out);

void rms_norm(CudaExec& exec, View<const float, 2, Cuda> x, View<const float, 1, Cuda> weight, float epsilon,
              View<float, 2, Cuda> out);

void swiglu(CudaExec& exec, View<const float, 2, Cuda> gate, View<const float, 2, Cuda> up, View<float, 2, Cuda> out);

void add(CudaExec& exec, View<float, 2, Cuda> x, View<const float, 2, Cuda> y);

void round_to_bf16(CudaExec& exec, View<float, 1, Cuda> x);

/// out = x rounded to bfloat16. Both [n].
void narrow_to_bf16(CudaExec& exec, View<const float, 1, Cuda> x, View<BFloat16, 1, Cuda> out);

void rope(CudaExec& exec, View<const float, 3, Cuda> x, View<const float, 2, Cuda> cosines,
          View<const float, 2, Cuda> sines, cuda::Position first, View<float, 3, Cuda> out,
          std::size_t last = std::numeric_limits<std::size_t>::max());

/// Where the keys or the values of a kv head start: `first`, and of each further head `stride` elements on. On the
/// device, in the layout of EntryBlock (kernels/entries.h).
struct CudaHeads {
  BFloat16* first = nullptr;
  std::size_t stride = 0;
};

/// Writes keys, rounded to bfloat16, into the panels of every kv head, from entry `first` on.
/// keys: [tokens, kv_heads, head_dim], head_dim even.
void append_keys(CudaExec& exec, View<const float, 3, Cuda> keys, CudaHeads panels, cuda::Position first);

/// Writes values, rounded to bfloat16, into the rows of every kv head, from entry `first` on.
/// values: [tokens, kv_heads, head_dim].
void append_values(CudaExec& exec, View<const float, 3, Cuda> values, CudaHeads rows, cuda::Position first);

/// Copies rows to those of `to` from row `first` on. rows: [tokens, width], to: [room, width].
void append_rows(CudaExec& exec, View<const float, 2, Cuda> rows, View<float, 2, Cuda> to, cuda::Position first);

}  // namespace memlane
