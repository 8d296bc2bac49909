#include "memory/segment.h"

#include <utility>

#include "kernels/write_entries.h"

namespace memlane {

namespace {
constexpr std::size_t kAlignment = 64;
std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}
}  // namespace

std::size_t EntryShape::key_bytes(std::size_t count) const {
  return aligned(key_elements(count, head_dim, dtype) * size_of(dtype));
}

std::size_t EntryShape::value_bytes(std::size_t count) const {
  return aligned(count * head_dim * size_of(dtype));
}

std::size_t EntryShape::segment_bytes(std::size_t count) const {
  return layers.size() * kv_heads * (key_bytes(count) + value_bytes(count));
}

Segment::Segment(const EntryShape& shape, std::size_t count)
    : Segment(shape, count, static_cast<const std::byte*>(nullptr)) {
  owned_ = Buffer<std::byte>::zeroed(size_);
  bytes_ = owned_.data();
}

Segment::Segment(const EntryShape& shape, std::size_t count, Buffer<std::byte> bytes)
    : Segment(shape, count, static_cast<const std::byte*>(nullptr)) {
  MEMLANE_EXPECTS(bytes.size() == size_);
  owned_ = std::move(bytes);
  bytes_ = owned_.data();
}

Segment::Segment(const EntryShape& shape, std::size_t count, const std::byte* bytes)
    : count_(count),
      kv_heads_(shape.kv_heads),
      head_dim_(shape.head_dim),
      dtype_(shape.dtype),
      key_bytes_(shape.key_bytes(count)),
      value_bytes_(shape.value_bytes(count)),
      size_(shape.segment_bytes(count)),
      bytes_(bytes) {
  MEMLANE_EXPECTS(count > 0);
}

std::size_t Segment::offset(std::size_t layer_slot, std::size_t kv_head) const {
  const std::size_t begin = (layer_slot * kv_heads_ + kv_head) * (key_bytes_ + value_bytes_);
  MEMLANE_EXPECTS(kv_head < kv_heads_ && begin < size_);
  return begin;
}

EntryBlock Segment::block(std::size_t layer_slot, std::size_t kv_head) const {
  const std::byte* begin = bytes_ + offset(layer_slot, kv_head);
  return {begin, begin + key_bytes_, count_, dtype_};
}

void Segment::fill(CpuExec& exec, std::size_t layer_slot, View<const float, 3> keys, View<const float, 3> values) {
  MEMLANE_EXPECTS(owned_.size() == size_);
  MEMLANE_EXPECTS(keys.extents() == values.extents());
  MEMLANE_EXPECTS(keys.extent(0) == count_ && keys.extent(1) == kv_heads_ && keys.extent(2) == head_dim_);
  std::byte* begin = owned_.data() + offset(layer_slot, 0);
  const std::size_t head_elements = (key_bytes_ + value_bytes_) / size_of(dtype_);
  write_key_panels(exec, dtype_, begin, head_elements, 0, keys);
  write_values(exec, dtype_, begin + key_bytes_, head_elements, values);
}

}  // namespace memlane
