#include "runtime/local_attention.h"

#include <algorithm>

#include "kernels/layers.h"

#ifdef MEMLANE_HAS_CUDA
#include "runtime/cuda/cuda_backend.h"
#endif

namespace memlane {

namespace {
constexpr std::size_t kRotatedAtOnce = 256;  // keys of a layer that are rotated again, few enough to stay in a cache
}

template <class Exec>
LocalAttention<Exec>::LocalAttention(Exec& exec, const ModelConfig& config, const MemorySettings& settings,
                                     DType compute)
    : num_layers_(config.num_layers),
      head_dim_(config.head_dim),
      compute_(compute),
      dynamic_mode_(settings.dynamic_mode),
      overlap_(settings.overlap),
      sliding_window_(settings.sliding_window),
      sinks_(settings.sinks),
      capped_distance_(settings.capped_distance),
      cache_(Backend<Exec>::make_cache(exec, config, settings, compute)),
      rotations_{make_rotation(exec, config, settings, LayerKind::plain),
                 make_rotation(exec, config, settings, LayerKind::memory)} {}

template <class Exec>
typename LocalAttention<Exec>::Rotation LocalAttention<Exec>::make_rotation(Exec& exec, const ModelConfig& config,
                                                                            const MemorySettings& settings,
                                                                            LayerKind kind) const {
  const bool remembers = kind == LayerKind::memory;
  Rotation made;
  made.on = !remembers || (!settings.mem_layers.empty() && settings.mem_positionals);
  if (!made.on) return made;
  made.scaling = remembers ? settings.memory_rope : settings.rope;
  made.follows_length = follows_length(config, settings, kind);
  // Frequencies that follow the length start with those of the shortest.
  made.frequencies = rope_frequencies(made.scaling, head_dim_, made.follows_length ? 1 : full_length(settings, kind));
  made.table = Backend<Exec>::make_rotations(exec, made.frequencies, 0, cache_.capacity(kind));
  return made;
}

template <class Exec>
std::size_t LocalAttention<Exec>::room() const {
  return std::min(cache_.capacity(LayerKind::plain) - size(), cache_.capacity(LayerKind::memory) - memory_size());
}

template <class Exec>
void LocalAttention<Exec>::begin(Exec& exec, std::size_t tokens) {
  MEMLANE_EXPECTS(tokens >= 1 && tokens <= room());
  tokens_ = tokens;
  for (const LayerKind kind : {LayerKind::plain, LayerKind::memory}) {
    if (rotation(kind).on && rotation(kind).follows_length) follow_length(exec, kind);
  }
}

/// Takes the frequencies of the length that this pass ends at.
template <class Exec>
void LocalAttention<Exec>::follow_length(Exec& exec, LayerKind kind) {
  Rotation& by = rotation(kind);
  const std::size_t begin = cache_.size(kind);
  const std::size_t end = begin + tokens_;
  RopeFrequencies now = rope_frequencies(by.scaling, head_dim_, end);
  const bool changed = now != by.frequencies;
  if (!changed && by.first <= begin && end <= by.first + by.table.positions()) return;
  by.frequencies = std::move(now);
  const bool again = changed && dynamic_mode_ == DynamicMode::consistent;
  // Changed frequencies will change again with the next pass: only the rows that this one needs. Otherwise all rows.
  by.first = changed && !again ? begin : 0;
  by.table = Backend<Exec>::make_rotations(exec, by.frequencies, by.first, changed ? end : cache_.capacity(kind));
  if (again) rotate_again(exec, kind, 0);
}

template <class Exec>
void LocalAttention<Exec>::rotate(Exec& exec, const Rotation& by, View<const float, 3, Device> x, Position first,
                                  View<float, 3, Device> out, std::size_t last) const {
  MEMLANE_EXPECTS(by.first <= first);
  rope(exec, x, by.table.cosines(), by.table.sines(), first - by.first, out, last - by.first);
}

/// Rotates the held keys from entry `first` on anew, from those that are kept un-rotated.
template <class Exec>
void LocalAttention<Exec>::rotate_again(Exec& exec, LayerKind kind, std::size_t first) {
  if (first >= cache_.size(kind)) return;
  for (std::size_t layer = 0; layer < num_layers_; ++layer) {
    if (cache_.kind(layer) != kind) continue;
    for (std::size_t begin = first; begin < cache_.size(kind); begin += kRotatedAtOnce) {
      const std::size_t some = std::min(kRotatedAtOnce, cache_.size(kind) - begin);
      const View<const float, 3, Device> keys = cache_.unrotated(layer, begin).slice(0, some);
      rotated_.reserve_discarding(keys.size());
      const View<float, 3, Device> rotated(rotated_.data(), keys.extents());
      rotate(exec, rotation(kind), keys, begin, rotated);
      cache_.rewrite(exec, layer, begin, rotated);
      if (kind == LayerKind::memory || capped_distance_ == 0) continue;
      rotate(exec, rotation(kind), keys, 0, rotated, 0);
      cache_.rewrite_at_zero(exec, layer, begin, rotated);
    }
  }
}

template <class Exec>
void LocalAttention<Exec>::store(Exec& exec, std::size_t layer, View<float, 3, Device> keys,
                                 View<const float, 3, Device> values) {
  const LayerKind kind = cache_.kind(layer);
  const Rotation& by = rotation(kind);
  cache_.store_unrotated(layer, keys, values);
  if (kind == LayerKind::plain && capped_distance_ > 0) {
    rotated_.reserve_discarding(keys.size());
    const View<float, 3, Device> at_zero(rotated_.data(), keys.extents());
    rotate(exec, by, keys, 0, at_zero, 0);
    cache_.store_at_zero(exec, layer, at_zero);
  }
  if (by.on) rotate(exec, by, keys, position(kind), keys);
  cache_.store(exec, layer, keys, values);
}

template <class Exec>
void LocalAttention<Exec>::attend(Exec& exec, std::size_t layer, View<float, 3, Device> queries, float scale,
                                  Partial out) {
  const LayerKind kind = cache_.kind(layer);
  const std::size_t first = cache_.size(kind);
  const bool far = sees_far(kind);
  Partial from_far;
  if (far) {  // first, while the queries are as projected
    from_far = far_partial_.get(queries.extent(0), queries.extent(1), head_dim_);
    attend_far(exec, layer, queries, scale, from_far);
  }
  if (rotation(kind).on) rotate(exec, rotation(kind), queries, position(kind), queries);
  if (compute_ == DType::bf16) round_to_bf16(exec, queries.flat());
  Visibility near = Visibility::causal_from(first);
  if (kind == LayerKind::plain && sliding_window_ > 0) near.max_distance = sliding_window_ - sinks_ - 1;
  if (kind == LayerKind::plain && sliding_window_ > 0) near.first_entry = sinks_;
  if (kind == LayerKind::plain && capped_distance_ > 0) near.max_distance = capped_distance_ - 1;
  memlane::attend(exec, queries, cache_.blocks(layer, tokens_), scale, near, out);
  if (far) merge(exec, out, from_far);
}

/// Whether queries of this pass see some entries otherwise than at their distance.
template <class Exec>
bool LocalAttention<Exec>::sees_far(LayerKind kind) const {
  if (kind == LayerKind::memory) return false;
  return sinks_ > 0 || (capped_distance_ > 0 && size() + tokens_ > capped_distance_);
}

/// The partial over sinks, or over what lies at the capped distance or further.
template <class Exec>
void LocalAttention<Exec>::attend_far(Exec& exec, std::size_t layer, View<const float, 3, Device> queries, float scale,
                                      Partial out) {
  const Rotation& by = rotation(LayerKind::plain);
  rotated_.reserve_discarding(queries.size());
  const View<float, 3, Device> rotated(rotated_.data(), queries.extents());
  Visibility far = Visibility::causal_from(size());
  typename Backend<Exec>::Blocks blocks;
  if (sinks_ > 0) {
    rotate(exec, by, queries, position(LayerKind::plain), rotated, sliding_window_ - 1);
    far.end_entry = sinks_;
    blocks = cache_.blocks(layer, tokens_);
  } else {
    rotate(exec, by, queries, capped_distance_, rotated, capped_distance_);
    far.min_distance = capped_distance_;
    blocks = cache_.blocks_at_zero(layer, tokens_);
  }
  if (compute_ == DType::bf16) round_to_bf16(exec, rotated.flat());
  memlane::attend(exec, rotated, blocks, scale, far, out);
}

template <class Exec>
float LocalAttention<Exec>::memory_key_factor() const {
  const Rotation& by = rotations_[1];
  return by.on ? static_cast<float>(by.frequencies.attention_factor) : 1.0F;
}

template <class Exec>
void LocalAttention<Exec>::move_on(Exec& exec) {
  const std::size_t tail = sliding_window_ > 0 ? sliding_window_ - 1 - sinks_ : overlap_;
  if (sinks_ + tail >= size()) return;
  cache_.keep(sinks_, tail);
  rotate_again(exec, LayerKind::plain, sinks_);
}

template <class Exec>
std::size_t LocalAttention<Exec>::bytes(const ModelConfig& config, const MemorySettings& settings, DType compute,
                                        std::size_t tokens) {
  const std::size_t capacity = local_capacity(settings, LayerKind::plain);
  const std::size_t tables =
      RopeTable::bytes(config.head_dim, capacity) +
      (settings.mem_layers.empty() ? 0
                                   : RopeTable::bytes(config.head_dim, local_capacity(settings, LayerKind::memory)));
  const bool far = settings.sinks > 0 || settings.capped_distance > 0;
  const bool memory_again =
      settings.dynamic_mode == DynamicMode::consistent && follows_length(config, settings, LayerKind::memory);
  const std::size_t keys =
      config.num_kv_heads *
      std::min(kRotatedAtOnce, std::max(keeps_unrotated_keys(config, settings) ? capacity : 0,
                                        memory_again ? local_capacity(settings, LayerKind::memory) : std::size_t{0}));
  const std::size_t queries = far ? tokens * config.num_heads : 0;
  const std::size_t partial = far ? queries * (config.head_dim + 2) * sizeof(float) : 0;
  return Backend<Exec>::Cache::bytes(config, settings, compute) + tables + partial +
         std::max(keys, queries) * config.head_dim * sizeof(float);
}

template class LocalAttention<CpuExec>;
#ifdef MEMLANE_HAS_CUDA
template class LocalAttention<CudaExec>;
#endif

}  // namespace memlane
