#pragma once

#include <cstddef>
#include <vector>

#include "kernels/attention.h"
#include "kernels/exec.h"
#include "memory/document_memory.h"

namespace memlane {

/// What memory layers attend to: the entries of one or more documents, as one unordered set. Does not own the
/// documents.
class Memory {
 public:
  Memory(EntryShape shape, Lookup lookup) : shape_(std::move(shape)), lookup_(std::move(lookup)) {}

  /// Adds a document of the same entry shape. It must outlive this; what it gains later is seen too.
  void add(const DocumentMemory& document);

  const EntryShape& shape() const { return shape_; }
  const Lookup& lookup() const { return lookup_; }
  const std::vector<const DocumentMemory*>& documents() const { return documents_; }
  std::size_t entries() const;
  bool empty() const { return entries() == 0; }

  /// The partial attention of queries [tokens, heads, head_dim] over the memory of a layer, by the lookup. Must not be
  /// empty.
  void attend(CpuExec& exec, std::size_t layer_slot, View<const float, 3> queries, float scale, AttentionPartial out);

 private:
  View<const EntryBlock, 2> blocks(std::size_t layer_slot);
  void attend_top_k(CpuExec& exec, std::size_t layer_slot, View<const float, 3> queries, float scale,
                    AttentionPartial out);
  void propose(CpuExec& exec, const DocumentMemory& document, std::size_t layer_slot, View<const float, 3> queries,
               View<std::int64_t, 3> ids, View<float, 3> scores) const;

  EntryShape shape_;
  Lookup lookup_;
  std::vector<const DocumentMemory*> documents_;
  std::vector<EntryBlock> joined_;  // the blocks of several documents side by side, made for each call
  Buffer<std::int64_t> ids_;
  Buffer<float> scores_;
  Buffer<std::int64_t> proposed_ids_;
  Buffer<float> proposed_scores_;
};

}  // namespace memlane
