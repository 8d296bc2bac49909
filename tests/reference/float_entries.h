#pragma once

#include <cstddef>
#include <vector>

#include "memory/entry_rows.h"

namespace memlane::reference {

/// Rows of floats as the entries of a layer and head.
class FloatEntries {
 public:
  /// keys, values: [count, head_dim]; values are used where they lie, or none.
  FloatEntries(const float* keys, const float* values, std::size_t count, std::size_t head_dim)
      : panels_(key_elements(count, head_dim, DType::f32)), head_dim_(head_dim) {
    write_keys(panels_.data(), 0, keys, head_dim, count, head_dim);
    block_ = {panels_.data(), values, count, DType::f32};
  }
  FloatEntries(const FloatEntries&) = delete;
  FloatEntries& operator=(const FloatEntries&) = delete;

  EntryRows rows() const { return {{&block_, 1}, head_dim_}; }
  const EntryBlock& block() const { return block_; }

 private:
  std::vector<float> panels_;
  std::size_t head_dim_;
  EntryBlock block_;
};

}  // namespace memlane::reference
