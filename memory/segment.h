#pragma once

#include <cstddef>
#include <vector>

#include "kernels/array.h"
#include "kernels/entries.h"
#include "kernels/exec.h"

namespace memlane {

/// What an entry of memory is made of; the same for every segment of a memory.
struct EntryShape {
  std::vector<int> layers;  ///< indices of the memory layers in the model, ascending
  std::size_t kv_heads = 0;
  std::size_t head_dim = 0;
  DType dtype = DType::bf16;  ///< of stored keys and values

  friend bool operator==(const EntryShape&, const EntryShape&) = default;

  /// Bytes of the keys, and of the values, of one layer and head of a segment of `count` entries; each is padded to 64
  /// bytes.
  std::size_t key_bytes(std::size_t count) const;
  std::size_t value_bytes(std::size_t count) const;
  /// Bytes of a whole segment of `count` entries: every memory layer and head.
  std::size_t segment_bytes(std::size_t count) const;
};

/// The entries that one window left in memory: for every memory layer and key/value head its keys, un-rotated, and
/// values. A window's segment is complete or it does not exist; segments never change once they are in a memory.
///
/// Layout of the bytes: for each memory layer, for each head: key panels, then values (kernels/entries.h), each padded
/// to 64 bytes with zeros. In memory and in the memory file they are the same, so a file is used where it is mapped.
class Segment {
 public:
  /// A zeroed segment that owns its bytes, to be filled.
  Segment(const EntryShape& shape, std::size_t count);
  /// A segment that owns bytes in its layout, made elsewhere. bytes: shape.segment_bytes(count).
  Segment(const EntryShape& shape, std::size_t count, Buffer<std::byte> bytes);
  /// A segment over bytes that somebody else keeps alive (a mapped file). bytes: shape.segment_bytes(count), aligned
  /// to 64.
  Segment(const EntryShape& shape, std::size_t count, const std::byte* bytes);

  std::size_t count() const { return count_; }
  std::span<const std::byte> bytes() const { return {bytes_, size_}; }

  /// Keys and values of one layer and head. layer_slot: index into EntryShape::layers.
  EntryBlock block(std::size_t layer_slot, std::size_t kv_head) const;

  /// Fills one layer of an owned segment from rows of floats, rounding to the entries' type.
  /// keys (un-rotated), values: [count, kv_heads, head_dim].
  void fill(CpuExec& exec, std::size_t layer_slot, View<const float, 3> keys, View<const float, 3> values);

 private:
  std::size_t offset(std::size_t layer_slot, std::size_t kv_head) const;

  std::size_t count_ = 0;
  std::size_t kv_heads_ = 0;
  std::size_t head_dim_ = 0;
  DType dtype_ = DType::bf16;
  std::size_t key_bytes_ = 0;
  std::size_t value_bytes_ = 0;
  std::size_t size_ = 0;
  Buffer<std::byte> owned_;
  const std::byte* bytes_ = nullptr;
};

}  // namespace memlane
