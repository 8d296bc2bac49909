#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kernels/attention.h"
#include "kernels/exec.h"
#include "kernels/key_lists.h"
#include "memory/document_memory.h"
#include "memory/joint_index.h"
#include "memory/list_settings.h"

namespace memlane {

/// What memory layers attend to: the entries of one or more documents, as one unordered set. Does not own the
/// documents.
class Memory {
 public:
  /// Throws InputError for a lookup whose parameters are rejected.
  Memory(EntryShape shape, Lookup lookup);

  /// Adds a document of the same entry shape. It must outlive this; what it gains later is seen too.
  void add(const DocumentMemory& document);
  /// Adds documents before all others whose entries an index covers together, in its order: searches take its lists, so
  /// these documents need none of their own, and must gain nothing later. lookup() must be ivf. The index must outlive
  /// this, too.
  void add(std::span<const DocumentMemory* const> documents, const JointIndex& index);

  const EntryShape& shape() const { return shape_; }
  const Lookup& lookup() const { return lookup_; }
  const std::vector<const DocumentMemory*>& documents() const { return documents_; }
  std::size_t entries() const;
  bool empty() const { return entries() == 0; }

  /// The partial attention of queries [tokens, heads, head_dim] over the memory of a layer, by the lookup. Must not be
  /// empty.
  void attend(CpuExec& exec, std::size_t layer_slot, View<const float, 3> queries, float scale, AttentionPartial out);

  /// Chosen entries as attend_selected takes them.
  struct Selected {
    View<const std::int64_t, 3> ids;
    View<const float, 3> scores;
  };
  /// The entries that each query attends to, if the lookup is not dense. Valid until the next call.
  Selected select(CpuExec& exec, std::size_t layer_slot, View<const float, 3> queries, float scale);

  /// What looking entries up is of: `tokens` queries of `heads` heads at once, in a memory of so many entries and
  /// documents.
  struct LookupSize {
    std::size_t threads = 1;
    std::size_t tokens = 0, heads = 0, kv_heads = 0, head_dim = 0;
    std::size_t entries = 0, documents = 0;
  };
  /// Bytes that it takes: of what is found and of searching lists, beside the scratch of other kernels.
  static std::size_t lookup_bytes(const Lookup& lookup, const LookupSize& size);

  /// Where lists are searched, what the searches looked at is counted here from now on; null for nowhere.
  void set_count(SearchCount* count) { count_ = count; }
  /// How entries that lie in a mapped file are looked at while what is resident is kept below a limit.
  struct Pieces {
    std::size_t bytes = 0;        ///< of entries at a time, about: a window is not cut
    std::function<void()> pause;  ///< called after each piece; the pages looked at so far may then be given back
  };
  /// Looks at entries in pieces from now on: dense and exact lookups do, those with indexes pause after each call
  /// alone. Results are the same, bit for bit. No pause: all at once.
  void set_pieces(Pieces pieces) { pieces_ = std::move(pieces); }
  /// Where stored entries may lie on a disk: lookups with lists call this, from several threads, for what they choose,
  /// many at a time, before they read it. Null: never; asking takes time.
  void set_read_ahead(void (*read_ahead)(const void* data, std::size_t bytes)) { read_ahead_ = read_ahead; }
  /// Called with the layer, the queries and the scale of each call of attend() before it attends; for measuring.
  using Observer = std::function<void(std::size_t layer_slot, View<const float, 3> queries, float scale)>;
  void set_observer(Observer observer) { observer_ = std::move(observer); }

  /// Adds what each entry weighs in a softmax that this memory is a part of, times `factor`: kernels/entry_weights.h.
  /// By the lookup: entries that a query does not attend to weigh nothing for it. max, weight: [tokens, heads], of the
  /// whole softmax. sums: [entries()], entries numbered through the documents in the order in which these were added.
  void add_weights(CpuExec& exec, std::size_t layer_slot, View<const float, 3> queries, float scale,
                   View<const float, 2> max, View<const float, 2> weight, double factor, std::span<double> sums);

 private:
  /// Blocks of all documents, as [kv_heads, blocks].
  View<const EntryBlock, 2> all_blocks(std::size_t layer_slot);
  std::size_t tokens_at_once(std::size_t heads) const;
  Selected select(CpuExec& exec, std::size_t layer_slot, View<const float, 3> queries, float scale,
                  View<const EntryBlock, 2> all, const AttentionPartial* tail);
  void search(CpuExec& exec, std::size_t layer_slot, View<const float, 3> queries, float scale,
              View<const EntryBlock, 2> all, View<std::int64_t, 3> ids, View<float, 3> scores,
              const AttentionPartial* tail);
  void propose_all(CpuExec& exec, std::size_t layer_slot, View<const float, 3> queries, View<std::int64_t, 3> ids,
                   View<float, 3> scores);
  void propose(CpuExec& exec, const DocumentMemory& document, std::size_t layer_slot, View<const float, 3> queries,
               View<std::int64_t, 3> ids, View<float, 3> scores);

  void read_values_ahead(CpuExec& exec, View<const EntryBlock, 2> all, View<const std::int64_t, 3> ids) const;
  bool in_pieces(View<const EntryBlock, 2> all, std::size_t bytes_per_entry) const;
  void attend_in_pieces(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> all, float scale,
                        AttentionPartial out);
  void scan_in_pieces(CpuExec& exec, View<const float, 3> queries, View<const EntryBlock, 2> all,
                      View<std::int64_t, 3> ids, View<float, 3> scores);

  EntryShape shape_;
  Lookup lookup_;
  Pieces pieces_;
  void (*read_ahead_)(const void* data, std::size_t bytes) = nullptr;
  ListSettings lists_;  // of a lookup that has lists
  std::vector<const DocumentMemory*> documents_;
  const JointIndex* joint_ = nullptr;  // over the first of them, or none
  SearchCount* count_ = nullptr;
  Observer observer_;
  // What all_blocks() made, of documents of these versions: of millions of entries that takes longer than to find some.
  struct Joined {
    std::vector<std::uint64_t> versions;
    std::vector<EntryBlock> blocks;
  };
  std::vector<Joined> joined_;           // [layers]
  std::vector<EntryBlock> of_document_;  // blocks of one, [kv_heads, blocks], made for each call
  std::vector<ListChunk> chunks_;        // [kv_heads, chunks], the same
  PartialBuffer tail_, of_piece_;
  Buffer<std::int64_t> ids_;
  Buffer<float> scores_;
  Buffer<std::int64_t> proposed_ids_;
  Buffer<float> proposed_scores_;
};

}  // namespace memlane
