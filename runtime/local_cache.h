#pragma once

#include <cstddef>
#include <vector>

#include "kernels/array.h"
#include "kernels/entries.h"
#include "kernels/exec.h"
#include "memory/segment.h"
#include "runtime/model_config.h"

namespace memlane {

/// Keys and values of the tokens in the local window, for every layer. A token's position is its place in the window,
/// so keys are rotated once, when they come. Memory layers also keep them as projected, un-rotated: that is what moves
/// to memory.
class LocalCache {
 public:
  /// compute: the type that keys and values are held in.
  LocalCache(const ModelConfig& config, const MemorySettings& settings, DType compute);

  std::size_t size() const { return size_; }      ///< tokens held
  std::size_t window() const { return window_; }  ///< tokens at most

  /// Stores a layer's keys (rotated) and values for the tokens from size() on. Both [tokens, kv_heads, head_dim]. The
  /// tokens count as held only after advance(), when every layer has stored its part.
  void store(CpuExec& exec, std::size_t layer, View<const float, 3> keys, View<const float, 3> values);
  /// Of a memory layer: stores keys as projected, and values. layer_slot: index among the memory layers.
  void store_unrotated(std::size_t layer_slot, View<const float, 3> keys, View<const float, 3> values);
  void advance(std::size_t tokens);
  void clear() { size_ = 0; }

  /// The layer's entries, those of the `pending` stored but not yet counted tokens included: [kv_heads, 1].
  View<const EntryBlock, 2> blocks(std::size_t layer, std::size_t pending);

  /// A segment of all held tokens' keys and values of the memory layers.
  Segment to_segment(const EntryShape& shape) const;

  /// Bytes that a cache for these settings allocates.
  static std::size_t bytes(const ModelConfig& config, const MemorySettings& settings, DType compute);

 private:
  std::size_t kv_heads_, head_dim_, window_;
  DType compute_;
  std::size_t size_ = 0;
  std::size_t head_keys_;                  // elements of one head's key panels
  std::vector<Buffer<std::byte>> keys_;    // [layers]: [kv_heads][key panels of window entries]
  std::vector<Buffer<std::byte>> values_;  // [layers]: [kv_heads][window][head_dim]
  std::vector<Buffer<float>> raw_keys_;    // [memory layers]: [window][kv_heads][head_dim]
  std::vector<Buffer<float>> raw_values_;  // likewise
  std::vector<EntryBlock> blocks_;         // [kv_heads]
};

}  // namespace memlane
