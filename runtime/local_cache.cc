#include "runtime/local_cache.h"

#include <algorithm>
#include <cstring>

#include "kernels/write_entries.h"

namespace memlane {

LocalCache::LocalCache(const ModelConfig& config, const MemorySettings& settings, DType compute)
    : kv_heads_(config.num_kv_heads),
      head_dim_(config.head_dim),
      compute_(compute),
      capacities_{local_capacity(settings, LayerKind::plain), local_capacity(settings, LayerKind::memory)},
      layers_(config.num_layers),
      blocks_(kv_heads_) {
  for (const int layer : settings.mem_layers) {
    memory_layers_.push_back(static_cast<std::size_t>(layer));
    layers_[memory_layers_.back()].kind = LayerKind::memory;
  }
  const bool raw_in_plain_layers = keeps_unrotated_keys(config, settings);
  for (Layer& layer : layers_) {
    const bool remembers = layer.kind == LayerKind::memory;
    const std::size_t entries = capacity(layer.kind);
    layer.head_keys = key_elements(entries, head_dim_, compute);
    layer.keys = Buffer<std::byte>::zeroed(kv_heads_ * layer.head_keys * size_of(compute));
    layer.values = Buffer<std::byte>(entries * row_size() * size_of(compute));
    if (!remembers && settings.capped_distance > 0) layer.keys_at_zero = Buffer<std::byte>::zeroed(layer.keys.size());
    if (remembers || raw_in_plain_layers) layer.raw_keys = Buffer<float>(entries * row_size());
    if (remembers) layer.raw_values = Buffer<float>(entries * row_size());
  }
}

std::size_t LocalCache::bytes(const ModelConfig& config, const MemorySettings& settings, DType compute) {
  const auto layer_bytes = [&](LayerKind kind, std::size_t key_panels, std::size_t raw_arrays) {
    const std::size_t entries = local_capacity(settings, kind);
    const std::size_t elements =
        key_panels * key_elements(entries, config.head_dim, compute) + entries * config.head_dim;
    return config.num_kv_heads * (elements * size_of(compute) + raw_arrays * entries * config.head_dim * sizeof(float));
  };
  const std::size_t memory_layers = settings.mem_layers.size();
  return memory_layers * layer_bytes(LayerKind::memory, 1, 2) +
         (config.num_layers - memory_layers) * layer_bytes(LayerKind::plain, settings.capped_distance > 0 ? 2 : 1,
                                                           keeps_unrotated_keys(config, settings) ? 1 : 0);
}

void LocalCache::write(CpuExec& exec, Layer& layer, Buffer<std::byte>& panels, std::size_t first,
                       View<const float, 3> keys) {
  const std::size_t tokens = keys.extent(0);
  MEMLANE_EXPECTS(first + tokens <= capacity(layer.kind) && keys.size() == tokens * row_size() && panels.size() > 0);
  write_key_panels(exec, compute_, panels.data(), layer.head_keys, first, keys);
}

void LocalCache::store(CpuExec& exec, std::size_t layer, View<const float, 3> keys, View<const float, 3> values) {
  MEMLANE_EXPECTS(keys.extents() == values.extents());
  Layer& to = layers_[layer];
  const std::size_t first = size_of_layer(layer);
  const std::size_t entries = capacity(to.kind);
  write(exec, to, to.keys, first, keys);
  const std::size_t element = memlane::size_of(compute_);
  write_values(exec, compute_, to.values.data() + first * head_dim_ * element, entries * head_dim_, values);
}

void LocalCache::store_unrotated(std::size_t layer, View<const float, 3> keys, View<const float, 3> values) {
  Layer& to = layers_[layer];
  const std::size_t at = size_of_layer(layer) * row_size();
  const auto copy = [at](View<const float, 3> from, Buffer<float>& rows) {
    if (rows.size() == 0) return;
    MEMLANE_EXPECTS(at + from.size() <= rows.size());
    std::copy_n(from.data(), from.size(), rows.data() + at);
  };
  copy(keys, to.raw_keys);
  copy(values, to.raw_values);
}

void LocalCache::store_at_zero(CpuExec& exec, std::size_t layer, View<const float, 3> keys) {
  rewrite_at_zero(exec, layer, size_of_layer(layer), keys);
}

void LocalCache::rewrite(CpuExec& exec, std::size_t layer, std::size_t first, View<const float, 3> keys) {
  write(exec, layers_[layer], layers_[layer].keys, first, keys);
}

void LocalCache::rewrite_at_zero(CpuExec& exec, std::size_t layer, std::size_t first, View<const float, 3> keys) {
  write(exec, layers_[layer], layers_[layer].keys_at_zero, first, keys);
}

void LocalCache::advance(std::size_t tokens) {
  for (const LayerKind kind : {LayerKind::plain, LayerKind::memory}) {
    MEMLANE_EXPECTS(size(kind) + tokens <= capacity(kind));
  }
  for (std::size_t& size : sizes_) size += tokens;
}

void LocalCache::keep(std::size_t head, std::size_t tail) {
  std::size_t& size = sizes_[index_of(LayerKind::plain)];
  if (head + tail >= size) return;
  const std::size_t from = size - tail;
  const std::size_t row = row_size();
  for (Layer& layer : layers_) {
    if (layer.kind != LayerKind::plain || tail == 0) continue;
    MEMLANE_EXPECTS(layer.raw_keys.size() > 0);
    std::memmove(layer.raw_keys.data() + head * row, layer.raw_keys.data() + from * row, tail * row * sizeof(float));
    const std::size_t value_bytes = head_dim_ * memlane::size_of(compute_);
    for (std::size_t kv_head = 0; kv_head < kv_heads_; ++kv_head) {
      std::byte* rows = layer.values.data() + kv_head * capacity(LayerKind::plain) * value_bytes;
      std::memmove(rows + head * value_bytes, rows + from * value_bytes, tail * value_bytes);
    }
  }
  size = head + tail;
}

View<const EntryBlock, 2> LocalCache::blocks_of(const Layer& layer, const Buffer<std::byte>& panels,
                                                std::size_t count) {
  const std::size_t element = memlane::size_of(compute_);
  for (std::size_t head = 0; head < kv_heads_; ++head) {
    blocks_[head] = {panels.data() + head * layer.head_keys * element,
                     layer.values.data() + head * capacity(layer.kind) * head_dim_ * element, count, compute_};
  }
  return {blocks_.data(), {kv_heads_, 1}};
}

View<const EntryBlock, 2> LocalCache::blocks(std::size_t layer, std::size_t pending) {
  return blocks_of(layers_[layer], layers_[layer].keys, size_of_layer(layer) + pending);
}

View<const EntryBlock, 2> LocalCache::blocks_at_zero(std::size_t layer, std::size_t pending) {
  return blocks_of(layers_[layer], layers_[layer].keys_at_zero, size_of_layer(layer) + pending);
}

View<const float, 3> LocalCache::unrotated(std::size_t layer, std::size_t first) const {
  const std::size_t size = size_of_layer(layer);
  return layers_[layer].raw_keys.view<3>({size, kv_heads_, head_dim_}).slice(first, size);
}

Segment LocalCache::to_segment(CpuExec& exec, const EntryShape& shape) const {
  const std::size_t count = size(LayerKind::memory);
  Segment segment(shape, count);
  for (std::size_t slot = 0; slot < memory_layers_.size(); ++slot) {
    const Layer& layer = layers_[memory_layers_[slot]];
    segment.fill(exec, slot, layer.raw_keys.view<3>({count, kv_heads_, head_dim_}),
                 layer.raw_values.view<3>({count, kv_heads_, head_dim_}));
  }
  return segment;
}

}  // namespace memlane
