#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/array.h"
#include "memory/lookup.h"

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
  /// Adds keys [n, head_dim]; they get the next ids, from 0.
  virtual void add(View<const float, 2> keys) = 0;
  /// Keys held.
  virtual std::size_t size() const = 0;
  /// Proposes up to k entries for each query, -1 for none. queries: [n, head_dim], ids: [n, k].
  virtual void search(View<const float, 2> queries, View<std::int64_t, 2> ids) const = 0;
  /// The whole index as bytes that load_key_index() reads.
  virtual std::vector<std::byte> save() const = 0;
};

/// A new FAISS index for inner products. Throws InputError, quoting FAISS, for a factory string or parameters it
/// rejects.
std::unique_ptr<KeyIndex> make_key_index(const Lookup& lookup, std::size_t head_dim);

/// A saved index, with the search-time parameters of `lookup`. Throws InputError if the bytes are no such index.
std::unique_ptr<KeyIndex> load_key_index(const Lookup& lookup, std::size_t head_dim, std::span<const std::byte> bytes);

}  // namespace memlane
