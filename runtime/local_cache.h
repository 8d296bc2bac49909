#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "kernels/array.h"
#include "kernels/entries.h"
#include "kernels/exec.h"
#include "memory/segment.h"
#include "runtime/local_settings.h"
#include "runtime/model_config.h"

namespace memlane {

/// Keys and values of the local context, for every layer. Plain layers and memory layers hold different numbers of
/// tokens: a memory layer's move to memory when its window is full, a plain layer's stay until theirs is. A token's
/// position is its place in the cache, so keys are rotated once, when they come, and again only if they move or if
/// their frequencies change; then they are kept un-rotated as well. Memory layers always keep them un-rotated: that is
/// what moves to memory.
class LocalCache {
 public:
  /// compute: the type that keys and values are held in.
  LocalCache(const ModelConfig& config, const MemorySettings& settings, DType compute);

  LayerKind kind(std::size_t layer) const { return layers_[layer].kind; }
  std::size_t size(LayerKind kind) const { return sizes_[index_of(kind)]; }  ///< tokens that layers of a kind hold
  std::size_t capacity(LayerKind kind) const { return capacities_[index_of(kind)]; }  ///< tokens at most

  /// Stores a layer's keys (rotated) and values for the tokens behind those it holds. Both [tokens, kv_heads,
  /// head_dim]. The tokens count as held only after advance(), when every layer has stored its part.
  void store(CpuExec& exec, std::size_t layer, View<const float, 3> keys, View<const float, 3> values);
  /// Likewise the keys as projected, and in a memory layer the values as they are; nothing for a layer that does not
  /// keep them.
  void store_unrotated(std::size_t layer, View<const float, 3> keys, View<const float, 3> values);
  /// Of a plain layer under capped distances: likewise the keys as rotated at position 0.
  void store_at_zero(CpuExec& exec, std::size_t layer, View<const float, 3> keys);
  void advance(std::size_t tokens);

  /// Replaces the rotated keys from entry `first` on. keys: [tokens, kv_heads, head_dim].
  void rewrite(CpuExec& exec, std::size_t layer, std::size_t first, View<const float, 3> keys);
  void rewrite_at_zero(CpuExec& exec, std::size_t layer, std::size_t first, View<const float, 3> keys);

  void clear(LayerKind kind) { sizes_[index_of(kind)] = 0; }
  /// Plain layers keep the first `head` tokens and the last `tail`, which move up behind them; the rotated keys of
  /// those that moved must then be rewritten. Only if keys are kept un-rotated, or nothing moves.
  void keep(std::size_t head, std::size_t tail);

  /// The layer's entries, those of the `pending` stored but not yet counted tokens included: [kv_heads, 1].
  View<const EntryBlock, 2> blocks(std::size_t layer, std::size_t pending);
  /// The same with keys as rotated at position 0.
  View<const EntryBlock, 2> blocks_at_zero(std::size_t layer, std::size_t pending);
  /// The held tokens' keys from entry `first` on, as projected: [tokens, kv_heads, head_dim].
  View<const float, 3> unrotated(std::size_t layer, std::size_t first) const;

  /// A segment of all held tokens' keys and values of the memory layers.
  Segment to_segment(CpuExec& exec, const EntryShape& shape) const;

  /// Bytes that a cache for these settings allocates.
  static std::size_t bytes(const ModelConfig& config, const MemorySettings& settings, DType compute);

 private:
  struct Layer {
    LayerKind kind = LayerKind::plain;
    std::size_t head_keys = 0;       // elements of one head's key panels
    Buffer<std::byte> keys;          // [kv_heads][key panels of `capacity` entries]
    Buffer<std::byte> keys_at_zero;  // likewise, or empty
    Buffer<std::byte> values;        // [kv_heads][capacity][head_dim]
    Buffer<float> raw_keys;          // [capacity][kv_heads][head_dim], or empty
    Buffer<float> raw_values;        // likewise
  };

  static std::size_t index_of(LayerKind kind) { return kind == LayerKind::memory ? 1 : 0; }
  std::size_t size_of_layer(std::size_t layer) const { return size(layers_[layer].kind); }
  std::size_t row_size() const { return kv_heads_ * head_dim_; }
  void write(CpuExec& exec, Layer& layer, Buffer<std::byte>& panels, std::size_t first, View<const float, 3> keys);
  View<const EntryBlock, 2> blocks_of(const Layer& layer, const Buffer<std::byte>& panels, std::size_t count);

  std::size_t kv_heads_, head_dim_;
  DType compute_;
  std::array<std::size_t, 2> capacities_;  // by kind
  std::array<std::size_t, 2> sizes_{};
  std::vector<Layer> layers_;
  std::vector<std::size_t> memory_layers_;  // their indices, in order of slots
  std::vector<EntryBlock> blocks_;          // [kv_heads]
};

}  // namespace memlane
