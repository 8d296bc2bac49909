#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/attention.h"
#include "kernels/exec.h"
#include "runtime/backend.h"
#include "runtime/local_cache.h"

namespace memlane {

/// The local context of one text: what the layers see of the text itself, memory apart.
///
/// Plain layers see up to `window` tokens, memory layers the last ones of those, up to `memory_window`. A layer's own
/// count of the tokens before a token is its position there. Ways in which plain layers look at their context, beside
/// seeing all of it at its distance:
/// - sliding window with sinks (StreamingLLM, Xiao et al. 2023; LM-Infinite, Han et al. 2023): the last
///   sliding_window - sinks tokens at their distances; the first `sinks` tokens as from position sliding_window - 1 if
///   the query is further away.
/// - capped distances (ReRoPE, Su 2023): distances from capped_distance on count as capped_distance.
/// - frequencies that follow the length (dynamic NTK and the like): every pass rotates with those of the length it ends
///   at; consistent: and all keys before it again with them; inconsistent: those keep what they had.
template <class Exec>
class LocalAttention {
 public:
  using Device = typename Backend<Exec>::Device;
  using Partial = typename Backend<Exec>::Partial;
  using Position = typename Backend<Exec>::Position;

  /// compute: the type that keys and values are held in.
  LocalAttention(Exec& exec, const ModelConfig& config, const MemorySettings& settings, DType compute);

  std::size_t size() const { return cache_.size(LayerKind::plain); }  ///< tokens that plain layers hold
  /// Tokens that memory layers hold, or would: those that came since the last clear_memory_layers().
  std::size_t memory_size() const { return cache_.size(LayerKind::memory); }
  bool is_full(LayerKind kind) const { return cache_.size(kind) == cache_.capacity(kind); }
  /// Tokens that the next pass may have.
  std::size_t room() const;

  /// A pass over `tokens` tokens behind those held: begin, then for every layer store and perhaps attend, then advance.
  /// A pass that ends without advance() leaves no token behind.
  void begin(Exec& exec, std::size_t tokens);
  /// keys (as projected; rotated in place), values: [tokens, kv_heads, head_dim].
  void store(Exec& exec, std::size_t layer, View<float, 3, Device> keys, View<const float, 3, Device> values);
  /// The partial of the pass's queries over what they see of the layer's local context.
  /// queries: [tokens, heads, head_dim], as projected; rotated in place, and with bf16 compute rounded.
  void attend(Exec& exec, std::size_t layer, View<float, 3, Device> queries, float scale, Partial out);
  void advance() { cache_.advance(tokens_); }

  /// Of another backend than the CPU's. Whether passes of one token queue the same work, but for the sizes of the local
  /// context, as long as sees_far() and the arrays of the device are the same: unless rotations follow the length.
  bool repeats_itself() const { return !rotations_[0].follows_length && !rotations_[1].follows_length; }
  /// Whether queries of the pass that has begun see some entries of plain layers otherwise than at their distance.
  bool sees_far() const { return sees_far(LayerKind::plain); }
  /// Work that is queued finds the sizes on the device from here on; null: no more.
  void find_sizes(const std::uint32_t* sizes) {
    if constexpr (!std::is_same_v<Device, Host>) cache_.find_sizes(sizes);
  }

  /// What scores between rotated queries of memory layers and stored keys are to be multiplied by: the attention factor
  /// of a key, which stored ones are without.
  float memory_key_factor() const;

  /// A segment of what memory layers hold.
  Segment to_segment(Exec& exec, const EntryShape& shape) const { return cache_.to_segment(exec, shape); }
  void clear_memory_layers() { cache_.clear(LayerKind::memory); }
  /// Plain layers keep only what settings say that later tokens see: the overlap; the sinks and a sliding window less
  /// the next token; else nothing. What is kept moves to the front, its keys rotated anew.
  void move_on(Exec& exec);

  /// Bytes for a local context and passes over up to `tokens` tokens.
  static std::size_t bytes(const ModelConfig& config, const MemorySettings& settings, DType compute,
                           std::size_t tokens);

 private:
  /// How a kind of layers rotates.
  struct Rotation {
    bool on = true;
    RopeScaling scaling = {};
    bool follows_length = false;
    RopeFrequencies frequencies = {};
    std::size_t first = 0;  // position of the table's first row
    typename Backend<Exec>::Rotations table;
  };
  Rotation make_rotation(Exec& exec, const ModelConfig& config, const MemorySettings& settings, LayerKind kind) const;
  Rotation& rotation(LayerKind kind) { return rotations_[kind == LayerKind::memory ? 1 : 0]; }
  Position position(LayerKind kind) const { return Backend<Exec>::position(cache_, kind); }
  void follow_length(Exec& exec, LayerKind kind);
  void rotate_again(Exec& exec, LayerKind kind, std::size_t first);
  void rotate(Exec& exec, const Rotation& by, View<const float, 3, Device> x, Position first,
              View<float, 3, Device> out, std::size_t last = std::numeric_limits<std::size_t>::max()) const;
  bool sees_far(LayerKind kind) const;
  void attend_far(Exec& exec, std::size_t layer, View<const float, 3, Device> queries, float scale, Partial out);

  std::size_t num_layers_;
  std::size_t head_dim_;
  DType compute_;
  DynamicMode dynamic_mode_;
  std::size_t overlap_, sliding_window_, sinks_, capped_distance_;
  typename Backend<Exec>::Cache cache_;
  std::array<Rotation, 2> rotations_;                      // by kind
  std::size_t tokens_ = 0;                                 // of the pass
  typename Backend<Exec>::template Array<float> rotated_;  // keys or queries, rotated in another way
  typename Backend<Exec>::Partials far_partial_;
};

}  // namespace memlane
