#pragma once

#include <cstddef>
#include <span>

#include "kernels/block_begins.h"
#include "kernels/entries.h"

namespace memlane {

/// The entries of one layer and head as rows of floats, read where they lie in their blocks.
class EntryRows {
 public:
  /// blocks: in order, kept by the caller.
  EntryRows(std::span<const EntryBlock> blocks, std::size_t head_dim)
      : blocks_(blocks), head_dim_(head_dim), begins_(blocks) {}

  std::size_t size() const { return begins_.entries(); }
  std::size_t head_dim() const { return head_dim_; }
  /// What keys are stored in, of all blocks.
  DType dtype() const { return blocks_.empty() ? DType::f32 : blocks_.front().dtype; }

  /// Entries [begin, end). out: [end - begin, head_dim].
  void read_keys(std::size_t begin, std::size_t end, float* out) const;
  void read_values(std::size_t begin, std::size_t end, float* out) const;

 private:
  template <class Read>
  void read(std::size_t begin, std::size_t end, float* out, const Read& read_some) const;

  std::span<const EntryBlock> blocks_;
  std::size_t head_dim_;
  BlockBegins begins_;
};

}  // namespace memlane
