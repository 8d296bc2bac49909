#include "runtime/cuda/cuda_local_cache.h"

#include "kernels/entries.h"
#include "runtime/local_cache.h"

namespace memlane {

CudaLocalCache::CudaLocalCache(CudaExec& exec, const ModelConfig& config, const MemorySettings& settings)
    : exec_(&exec),
      kv_heads_(config.num_kv_heads),
      head_dim_(config.head_dim),
      capacities_{local_capacity(settings, LayerKind::plain), local_capacity(settings, LayerKind::memory)},
      layers_(config.num_layers) {
  for (const int layer : settings.mem_layers) {
    memory_layers_.push_back(static_cast<std::size_t>(layer));
    layers_[memory_layers_.back()].kind = LayerKind::memory;
  }
  const bool raw_in_plain_layers = keeps_unrotated_keys(config, settings);
  for (Layer& layer : layers_) {
    const bool remembers = layer.kind == LayerKind::memory;
    const std::size_t entries = capacity(layer.kind);
    layer.head_keys = key_elements(entries, head_dim_, DType::bf16);
    layer.keys = CudaBuffer<BFloat16>::zeroed(kv_heads_ * layer.head_keys);
    layer.values = CudaBuffer<BFloat16>(entries * row_size());
    layer.table = make_table(layer, layer.keys);
    if (!remembers && settings.capped_distance > 0) {
      layer.keys_at_zero = CudaBuffer<BFloat16>::zeroed(layer.keys.size());
      layer.table_at_zero = make_table(layer, layer.keys_at_zero);
    }
    if (remembers || raw_in_plain_layers) layer.raw_keys = CudaBuffer<float>(entries * row_size());
    if (remembers) layer.raw_values = CudaBuffer<float>(entries * row_size());
  }
}

std::size_t CudaLocalCache::bytes(const ModelConfig& config, const MemorySettings& settings, DType compute) {
  return LocalCache::bytes(config, settings, compute) + config.num_layers * config.num_kv_heads * sizeof(cuda::Block);
}

CudaBuffer<cuda::Block> CudaLocalCache::make_table(const Layer& layer, const CudaBuffer<BFloat16>& panels) {
  std::vector<cuda::Block> table(kv_heads_);
  for (std::size_t head = 0; head < kv_heads_; ++head) {
    table[head].keys = reinterpret_cast<const std::uint32_t*>(panels.data() + head * layer.head_keys);
    table[head].values =
        reinterpret_cast<const std::uint16_t*>(layer.values.data() + head * capacity(layer.kind) * head_dim_);
    table[head].count = static_cast<std::uint32_t>(capacity(layer.kind));
  }
  CudaBuffer<cuda::Block> made = uploaded(*exec_, table.data(), table.size());
  exec_->synchronize();  // the table on the host goes away
  return made;
}

void CudaLocalCache::rewrite(CudaExec& exec, std::size_t layer, cuda::Position first, View<const float, 3, Cuda> keys) {
  Layer& to = layers_[layer];
  MEMLANE_EXPECTS(first.now() + keys.extent(0) <= capacity(to.kind) && keys.size() == keys.extent(0) * row_size());
  append_keys(exec, keys, {to.keys.data(), to.head_keys}, first);
}

void CudaLocalCache::rewrite_at_zero(CudaExec& exec, std::size_t layer, cuda::Position first,
                                     View<const float, 3, Cuda> keys) {
  Layer& to = layers_[layer];
  MEMLANE_EXPECTS(first.now() + keys.extent(0) <= capacity(to.kind) && to.keys_at_zero.size() > 0);
  append_keys(exec, keys, {to.keys_at_zero.data(), to.head_keys}, first);
}

void CudaLocalCache::store(CudaExec& exec, std::size_t layer, View<const float, 3, Cuda> keys,
                           View<const float, 3, Cuda> values) {
  MEMLANE_EXPECTS(keys.extents() == values.extents());
  Layer& to = layers_[layer];
  const cuda::Position first = position_of_layer(layer);
  rewrite(exec, layer, first, keys);
  append_values(exec, values, {to.values.data(), capacity(to.kind) * head_dim_}, first);
}

void CudaLocalCache::store_unrotated(std::size_t layer, View<const float, 3, Cuda> keys,
                                     View<const float, 3, Cuda> values) {
  Layer& to = layers_[layer];
  const auto copy = [&](View<const float, 3, Cuda> from, CudaBuffer<float>& rows) {
    if (rows.size() == 0) return;
    append_rows(*exec_, from.reshape<2>({from.extent(0), row_size()}), rows.view<2>({capacity(to.kind), row_size()}),
                position_of_layer(layer));
  };
  copy(keys, to.raw_keys);
  copy(values, to.raw_values);
}

void CudaLocalCache::store_at_zero(CudaExec& exec, std::size_t layer, View<const float, 3, Cuda> keys) {
  rewrite_at_zero(exec, layer, position_of_layer(layer), keys);
}

void CudaLocalCache::advance(std::size_t tokens) {
  for (const LayerKind kind : {LayerKind::plain, LayerKind::memory}) {
    MEMLANE_EXPECTS(size(kind) + tokens <= capacity(kind));
  }
  for (std::size_t& size : sizes_) size += tokens;
}

void CudaLocalCache::keep(std::size_t head, std::size_t tail) {
  std::size_t& size = sizes_[index_of(LayerKind::plain)];
  if (head + tail >= size) return;
  const std::size_t from = size - tail;
  // Old and new places may overlap: by way of the scratch space.
  const auto move = [&](std::byte* rows, std::size_t row_bytes) {
    std::byte* between = exec_->scratch(tail * row_bytes);
    detail::copy_on_device(*exec_, between, rows + from * row_bytes, tail * row_bytes);
    detail::copy_on_device(*exec_, rows + head * row_bytes, between, tail * row_bytes);
  };
  for (Layer& layer : layers_) {
    if (layer.kind != LayerKind::plain || tail == 0) continue;
    MEMLANE_EXPECTS(layer.raw_keys.size() > 0);
    move(reinterpret_cast<std::byte*>(layer.raw_keys.data()), row_size() * sizeof(float));
    for (std::size_t kv_head = 0; kv_head < kv_heads_; ++kv_head) {
      BFloat16* rows = layer.values.data() + kv_head * capacity(LayerKind::plain) * head_dim_;
      move(reinterpret_cast<std::byte*>(rows), head_dim_ * sizeof(BFloat16));
    }
  }
  size = head + tail;
}

/// pending: tokens that are stored but not yet counted.
cuda::Entries CudaLocalCache::entries_of(const Layer& layer, const CudaBuffer<cuda::Block>& table,
                                         std::size_t pending) const {
  const std::size_t held = size(layer.kind), room = capacity(layer.kind);
  MEMLANE_EXPECTS(held + pending <= room);
  cuda::Entries entries;
  entries.blocks = table.data();
  entries.kv_heads = static_cast<std::uint32_t>(kv_heads_);
  entries.block_count = 1;
  entries.limit = static_cast<std::uint32_t>(held + pending);
  entries.tiles = cuda::tiles_for(entries.limit);
  entries.held = {on_device(layer.kind), static_cast<std::uint32_t>(held), static_cast<std::uint32_t>(room)};
  return entries;
}

cuda::Entries CudaLocalCache::blocks(std::size_t layer, std::size_t pending) const {
  return entries_of(layers_[layer], layers_[layer].table, pending);
}

cuda::Entries CudaLocalCache::blocks_at_zero(std::size_t layer, std::size_t pending) const {
  return entries_of(layers_[layer], layers_[layer].table_at_zero, pending);
}

View<const float, 3, Cuda> CudaLocalCache::unrotated(std::size_t layer, std::size_t first) const {
  const std::size_t size = size_of_layer(layer);
  return layers_[layer].raw_keys.view<3>({size, kv_heads_, head_dim_}).slice(first, size);
}

Segment CudaLocalCache::to_segment(CudaExec& exec, const EntryShape& shape) const {
  const std::size_t count = size(LayerKind::memory);
  const std::size_t key_bytes = shape.key_bytes(count);
  const std::size_t head_bytes = key_bytes + shape.value_bytes(count);
  CudaBuffer<std::byte> made = CudaBuffer<std::byte>::zeroed(shape.segment_bytes(count));
  for (std::size_t slot = 0; slot < memory_layers_.size(); ++slot) {
    const Layer& layer = layers_[memory_layers_[slot]];
    std::byte* begin = made.data() + slot * kv_heads_ * head_bytes;
    const std::size_t stride = head_bytes / sizeof(BFloat16);
    append_keys(exec, layer.raw_keys.view<3>({count, kv_heads_, head_dim_}),
                {reinterpret_cast<BFloat16*>(begin), stride}, 0);
    append_values(exec, layer.raw_values.view<3>({count, kv_heads_, head_dim_}),
                  {reinterpret_cast<BFloat16*>(begin + key_bytes), stride}, 0);
  }
  Buffer<std::byte> bytes(made.size());
  download(exec, made.view<1>({made.size()}), bytes.view<1>({bytes.size()}));
  return {shape, count, std::move(bytes)};
}

}  // namespace memlane
