#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/array.h"
#include "kernels/exec.h"
#include "kernels/key_lists.h"
#include "memory/entry_rows.h"
#include "memory/lookup.h"
#include "memory/watch.h"

namespace memlane {

/// An index over the keys of one memory layer and key/value head: it proposes the entries with large inner products.
/// Called a few times per window, never per entry. Searching from several threads at once is allowed; anything else is
/// not.
class KeyIndex {
 public:
  virtual ~KeyIndex() = default;

  /// Keys that it needs to see before it can hold any; 0 once it is trained or if it never needs training.
  virtual std::size_t training_size() const = 0;
  /// Trains on keys [n, head_dim], n >= training_size().
  virtual void train(View<const float, 2> keys) = 0;
  /// From here on an index that compares keys by their distances takes those of the keys, as rows, times `metric`
  /// [head_dim, head_dim]; others ignore it. It is not saved with the index.
  virtual void set_metric(std::span<const float>) {}
  /// Adds the entries from size() on; their ids are their places. entries: all, those that it holds included.
  virtual void update(const MicroKernels& micro, const EntryRows& entries, const Watch& watch) = 0;
  /// Keys held.
  virtual std::size_t size() const = 0;
  /// Proposes up to k entries for each query, -1 for none. queries: [n, head_dim], ids: [n, k]. Not for indexes of
  /// lists: those of all documents are searched together, by search_lists().
  virtual void search(View<const float, 2> queries, View<std::int64_t, 2> ids) const = 0;
  /// The lists of an index that is made of them, in order of their entries; first_entry is 0 in all. Valid until the
  /// next update().
  virtual std::span<const ListChunk> chunks() const { return {}; }
  /// Bytes that it takes.
  virtual std::size_t bytes() const { return 0; }
  /// The whole index as bytes that load_key_index() reads.
  virtual std::vector<std::byte> save() const = 0;
};

/// A new index for inner products. Throws InputError, quoting FAISS where it is one of its, for a factory string or
/// parameters that are rejected.
std::unique_ptr<KeyIndex> make_key_index(const Lookup& lookup, std::size_t head_dim);

/// A new index over entries that nothing is added to: lists are made of all of them together. lookup: one with lists.
std::unique_ptr<KeyIndex> make_whole_index(const Lookup& lookup, std::size_t head_dim, const MicroKernels& micro,
                                           const EntryRows& entries, const Watch& watch = unwatched);

/// A saved index, with the search-time parameters of `lookup`. Throws InputError if the bytes are no such index. They
/// must outlive it: lists are used where they lie.
std::unique_ptr<KeyIndex> load_key_index(const Lookup& lookup, std::size_t head_dim, std::span<const std::byte> bytes);

/// Whether saved bytes are an index that `lookup` can use.
bool is_index_of(const Lookup& lookup, std::span<const std::byte> bytes);

}  // namespace memlane
