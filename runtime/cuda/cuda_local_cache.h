#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/layers.h"
#include "memory/segment.h"
#include "runtime/local_settings.h"
#include "runtime/model_config.h"

namespace memlane {

/// LocalCache on the GPU; keys and values are held in bfloat16.
class CudaLocalCache {
 public:
  /// exec: must outlive the cache.
  CudaLocalCache(CudaExec& exec, const ModelConfig& config, const MemorySettings& settings);

  LayerKind kind(std::size_t layer) const { return layers_[layer].kind; }
  std::size_t size(LayerKind kind) const { return sizes_[index_of(kind)]; }
  std::size_t capacity(LayerKind kind) const { return capacities_[index_of(kind)]; }
  /// Behind the tokens that layers of a kind hold.
  cuda::Position position(LayerKind kind) const { return {size(kind), on_device(kind)}; }

  /// From here on, what is queued finds the sizes of plain and of memory layers on the device, in two numbers; null:
  /// no more. What one token's pass queues then depends on nothing else that advance() changes.
  void find_sizes(const std::uint32_t* sizes) { sizes_on_device_ = sizes; }

  void store(CudaExec& exec, std::size_t layer, View<const float, 3, Cuda> keys, View<const float, 3, Cuda> values);
  void store_unrotated(std::size_t layer, View<const float, 3, Cuda> keys, View<const float, 3, Cuda> values);
  void store_at_zero(CudaExec& exec, std::size_t layer, View<const float, 3, Cuda> keys);
  void advance(std::size_t tokens);

  void rewrite(CudaExec& exec, std::size_t layer, cuda::Position first, View<const float, 3, Cuda> keys);
  void rewrite_at_zero(CudaExec& exec, std::size_t layer, cuda::Position first, View<const float, 3, Cuda> keys);

  void clear(LayerKind kind) { sizes_[index_of(kind)] = 0; }
  void keep(std::size_t head, std::size_t tail);

  cuda::Entries blocks(std::size_t layer, std::size_t pending) const;
  cuda::Entries blocks_at_zero(std::size_t layer, std::size_t pending) const;
  View<const float, 3, Cuda> unrotated(std::size_t layer, std::size_t first) const;

  /// Made on the GPU, then copied to the host.
  Segment to_segment(CudaExec& exec, const EntryShape& shape) const;

  static std::size_t bytes(const ModelConfig& config, const MemorySettings& settings, DType compute);

 private:
  struct Layer {
    LayerKind kind = LayerKind::plain;
    std::size_t head_keys = 0;              // elements of one head's key panels
    CudaBuffer<BFloat16> keys;              // [kv_heads][key panels of `capacity` entries]
    CudaBuffer<BFloat16> keys_at_zero;      // likewise, or empty
    CudaBuffer<BFloat16> values;            // [kv_heads][capacity][head_dim]
    CudaBuffer<float> raw_keys;             // [capacity][kv_heads][head_dim], or empty
    CudaBuffer<float> raw_values;           // likewise
    CudaBuffer<cuda::Block> table;          // [kv_heads]: blocks of `capacity` entries
    CudaBuffer<cuda::Block> table_at_zero;  // likewise, or empty
  };

  static std::size_t index_of(LayerKind kind) { return kind == LayerKind::memory ? 1 : 0; }
  const std::uint32_t* on_device(LayerKind kind) const {
    return sizes_on_device_ == nullptr ? nullptr : sizes_on_device_ + index_of(kind);
  }
  std::size_t size_of_layer(std::size_t layer) const { return size(layers_[layer].kind); }
  cuda::Position position_of_layer(std::size_t layer) const { return position(layers_[layer].kind); }
  std::size_t row_size() const { return kv_heads_ * head_dim_; }
  CudaBuffer<cuda::Block> make_table(const Layer& layer, const CudaBuffer<BFloat16>& panels);
  cuda::Entries entries_of(const Layer& layer, const CudaBuffer<cuda::Block>& table, std::size_t pending) const;

  CudaExec* exec_;
  std::size_t kv_heads_, head_dim_;
  std::array<std::size_t, 2> capacities_;  // by kind
  std::array<std::size_t, 2> sizes_{};
  const std::uint32_t* sizes_on_device_ = nullptr;
  std::vector<Layer> layers_;
  std::vector<std::size_t> memory_layers_;  // their indices, in order of slots
};

}  // namespace memlane
