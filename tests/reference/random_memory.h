#pragma once

#include <vector>

#include "memory/document_memory.h"
#include "tests/reference/attention.h"
#include "tests/reference/random_values.h"

namespace memlane::reference {

/// A document of random windows, and its entries for the reference: [layer slots][kv_heads], as stored after rounding.
class RandomDocument {
 public:
  RandomDocument(EntryShape shape, Lookup lookup)
      : memory_(shape, std::move(lookup)), truth_(shape.layers.size(), std::vector<Entries>(shape.kv_heads)) {}

  /// Appends a window of `count` entries.
  void append(Random& random, std::size_t count) {
    const EntryShape& shape = memory_.shape();
    CpuExec exec(1);
    Segment segment(shape, count);
    const std::array<std::size_t, 3> extents = {count, shape.kv_heads, shape.head_dim};
    for (std::size_t slot = 0; slot < truth_.size(); ++slot) {
      const std::vector<float> keys = random.floats(count * shape.kv_heads * shape.head_dim);
      const std::vector<float> values = random.floats(keys.size());
      segment.fill(exec, slot, {keys.data(), extents}, {values.data(), extents});
      for (std::size_t row = 0; row < count * shape.kv_heads; ++row) {
        const auto take = [&](const std::vector<float>& from) {
          const float* begin = from.data() + row * shape.head_dim;
          return rounded(Row(begin, begin + shape.head_dim), shape.dtype);
        };
        truth_[slot][row % shape.kv_heads].add(take(keys), take(values));
      }
    }
    memory_.append(std::move(segment));
  }

  DocumentMemory& memory() { return memory_; }
  const DocumentMemory& memory() const { return memory_; }
  const Entries& truth(std::size_t slot, std::size_t head) const { return truth_[slot][head]; }

 private:
  DocumentMemory memory_;
  std::vector<std::vector<Entries>> truth_;
};

}  // namespace memlane::reference
