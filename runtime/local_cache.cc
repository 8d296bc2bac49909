#include "runtime/local_cache.h"

#include <algorithm>

namespace memlane {

LocalCache::LocalCache(const ModelConfig& config, const MemorySettings& settings, DType compute)
    : kv_heads_(config.num_kv_heads),
      head_dim_(config.head_dim),
      window_(settings.window),
      compute_(compute),
      head_keys_(key_elements(window_, head_dim_, compute)),
      blocks_(kv_heads_) {
  for (std::size_t layer = 0; layer < config.num_layers; ++layer) {
    keys_.push_back(Buffer<std::byte>::zeroed(kv_heads_ * head_keys_ * size_of(compute)));
    values_.emplace_back(kv_heads_ * window_ * head_dim_ * size_of(compute));
  }
  for (std::size_t slot = 0; slot < settings.mem_layers.size(); ++slot) {
    raw_keys_.emplace_back(window_ * kv_heads_ * head_dim_);
    raw_values_.emplace_back(window_ * kv_heads_ * head_dim_);
  }
}

std::size_t LocalCache::bytes(const ModelConfig& config, const MemorySettings& settings, DType compute) {
  const std::size_t per_layer =
      key_elements(settings.window, config.head_dim, compute) + settings.window * config.head_dim;
  const std::size_t raw = 2 * settings.window * config.head_dim * sizeof(float);
  return config.num_kv_heads * (config.num_layers * per_layer * size_of(compute) + settings.mem_layers.size() * raw);
}

void LocalCache::store(CpuExec& exec, std::size_t layer, View<const float, 3> keys, View<const float, 3> values) {
  const std::size_t tokens = keys.extent(0);
  const std::size_t stride = kv_heads_ * head_dim_;
  MEMLANE_EXPECTS(size_ + tokens <= window_ && keys.extents() == values.extents());
  exec.pool().run(kv_heads_, [&](std::size_t head, std::size_t) {
    with_type(compute_, [&](auto type) {
      using T = decltype(type);
      T* panels = reinterpret_cast<T*>(keys_[layer].data()) + head * head_keys_;
      write_keys(panels, size_, keys.data() + head * head_dim_, stride, tokens, head_dim_);
      T* rows = reinterpret_cast<T*>(values_[layer].data()) + (head * window_ + size_) * head_dim_;
      for (std::size_t token = 0; token < tokens; ++token) {
        const float* from = values.data() + token * stride + head * head_dim_;
        for (std::size_t d = 0; d < head_dim_; ++d) rows[token * head_dim_ + d] = from_float<T>(from[d]);
      }
    });
  });
}

void LocalCache::store_unrotated(std::size_t layer_slot, View<const float, 3> keys, View<const float, 3> values) {
  const std::size_t at = size_ * kv_heads_ * head_dim_;
  MEMLANE_EXPECTS(at + keys.size() <= raw_keys_[layer_slot].size());
  std::copy_n(keys.data(), keys.size(), raw_keys_[layer_slot].data() + at);
  std::copy_n(values.data(), values.size(), raw_values_[layer_slot].data() + at);
}

void LocalCache::advance(std::size_t tokens) {
  MEMLANE_EXPECTS(size_ + tokens <= window_);
  size_ += tokens;
}

View<const EntryBlock, 2> LocalCache::blocks(std::size_t layer, std::size_t pending) {
  const std::size_t element = size_of(compute_);
  for (std::size_t head = 0; head < kv_heads_; ++head) {
    blocks_[head] = {keys_[layer].data() + head * head_keys_ * element,
                     values_[layer].data() + head * window_ * head_dim_ * element, size_ + pending, compute_};
  }
  return {blocks_.data(), {kv_heads_, 1}};
}

Segment LocalCache::to_segment(const EntryShape& shape) const {
  Segment segment(shape, size_);
  for (std::size_t slot = 0; slot < raw_keys_.size(); ++slot) {
    segment.fill(slot, raw_keys_[slot].view<3>({size_, kv_heads_, head_dim_}),
                 raw_values_[slot].view<3>({size_, kv_heads_, head_dim_}));
  }
  return segment;
}

}  // namespace memlane
