#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
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

  /// Adds what each entry weighs in a softmax that this memory is a part of, times `factor`: kernels/entry_weights.h.
  /// By the lookup: entries that a query does not attend to weigh nothing for it. max, weight: [tokens, heads], of the
  /// whole softmax. sums: [entries()], entries numbered through the documents in the order in which these were added.
  void add_weights(CpuExec& exec, std::size_t layer_slot, View<const float, 3> queries, float scale,
                   View<const float, 2> max, View<const float, 2> weight, double factor, std::span<double> sums);

 private:
  /// Chosen entries as attend_selected takes them.
  struct Selected {
    View<const std::int64_t, 3> ids;
    View<const float, 3> scores;
  };
  static View<const EntryBlock, 2> join(std::span<const DocumentMemory* const> documents, std::size_t layer_slot,
                                        std::vector<EntryBlock>& storage);
  std::size_t tokens_at_once(std::size_t heads) const;
  Selected select(CpuExec& exec, std::size_t layer_slot, View<const float, 3> queries, View<const EntryBlock, 2> all);
  void propose(CpuExec& exec, const DocumentMemory& document, std::size_t layer_slot, View<const float, 3> queries,
               View<std::int64_t, 3> ids, View<float, 3> scores);

  EntryShape shape_;
  Lookup lookup_;
  std::vector<const DocumentMemory*> documents_;
  // The blocks of all documents, or of one, as [kv_heads, blocks]: made for each call, which reads every block anyway.
  std::vector<EntryBlock> joined_, of_document_;
  Buffer<std::int64_t> ids_;
  Buffer<float> scores_;
  Buffer<std::int64_t> proposed_ids_;
  Buffer<float> proposed_scores_;
};

}  // namespace memlane
