#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attention.h"
#include "kernels/cuda/exec.h"
#include "kernels/cuda/tiles.h"

namespace memlane {

/// Largest head_dim that the kernels over entries take; it has to be even.
inline constexpr std::size_t kCudaMostHeadDim = 128;
/// Entries that a search finds for a query at most.
inline constexpr std::size_t kCudaMostBest = (std::size_t{1} << 24) - 1;

/// AttentionPartial on the GPU.
struct CudaPartial {
  View<float, 3, Cuda> sum;     ///< [tokens, heads, head_dim]
  View<float, 2, Cuda> max;     ///< [tokens, heads]
  View<float, 2, Cuda> weight;  ///< [tokens, heads]
};

/// PartialBuffer on the GPU.
class CudaPartialBuffer {
 public:
  CudaPartial get(std::size_t tokens, std::size_t heads, std::size_t head_dim);

 private:
  CudaBuffer<float> storage_;
};

/// The kernels of kernels/attention.h on the GPU, over bfloat16 entries. Queries are rounded to bfloat16, and softmax
/// weights when they meet the values. entries: their table is in device memory.
///
/// Calls with few query rows split the entries among blocks of threads, whose partials are merged in order of the
/// pieces: the same call gives the same bits, but queries one by one do not give those of queries together.
void attend(CudaExec& exec, View<const float, 3, Cuda> queries, const cuda::Entries& entries, float scale,
            Visibility visibility, CudaPartial out);

/// ids: [tokens, heads, k] of 32 bits, otherwise as on the CPU.
void attend_selected(CudaExec& exec, View<const float, 3, Cuda> queries, const cuda::Entries& entries,
                     View<const std::int32_t, 3, Cuda> ids, View<const float, 3, Cuda> scores, float scale,
                     CudaPartial out);

/// The same with the values of those entries side by side; those of ids that are -1 are not read.
/// values: [tokens, heads, k, head_dim], ids, scores: [tokens, heads, k].
void attend_gathered(CudaExec& exec, View<const BFloat16, 4, Cuda> values, View<const std::int32_t, 3, Cuda> ids,
                     View<const float, 3, Cuda> scores, float scale, CudaPartial out);

void merge(CudaExec& exec, CudaPartial into, CudaPartial from);

void finish(CudaExec& exec, CudaPartial partial, View<float, 3, Cuda> out);

/// The kernel of kernels/top_k.h on the GPU, over bfloat16 entries, fewer than 2^31; queries are rounded to bfloat16.
/// ids, scores: [tokens, heads, k].
void top_k_scan(CudaExec& exec, View<const float, 3, Cuda> queries, const cuda::Entries& entries,
                View<std::int32_t, 3, Cuda> ids, View<float, 3, Cuda> scores);

/// Joins what two scans found: ids and scores become the best k of both, of equal scores the older entry. Each list in
/// order of its entries, then -1, as top_k_scan makes it; entries of the second are counted from `base`, which is
/// behind those of the first. All: [tokens, heads, k].
void join_best(CudaExec& exec, View<std::int32_t, 3, Cuda> ids, View<float, 3, Cuda> scores,
               View<const std::int32_t, 3, Cuda> more, View<const float, 3, Cuda> more_scores, std::size_t base);

/// Bytes of scratch space that top_k_scan takes for each query token and head at most, and those that attend takes for
/// a whole call.
std::size_t top_k_row_bytes(std::size_t k);
std::size_t attend_scratch_bytes(const CudaExec& exec, std::size_t tokens, std::size_t heads, std::size_t head_dim);

}  // namespace memlane
