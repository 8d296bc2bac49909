#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/exec.h"
#include "memory/document_memory.h"
#include "memory/key_index.h"
#include "memory/lookup.h"
#include "memory/segment.h"

namespace memlane {

/// Key indexes over the entries of several documents together, one for each memory layer and key/value head. Entries
/// are numbered through the documents in their order. A search finds as much in fewer keys than in lists of each
/// document by itself: what lies near one another in different documents is in one list.
///
/// Only for the lookup ivf, and only over documents to which nothing is added.
class JointIndex {
 public:
  /// Called after each index with how many of them are made, by one thread at a time. What it throws ends the work and
  /// goes on to the caller.
  using Progress = std::function<void(std::size_t)>;
  /// documents: one or more, of one shape, none empty; they need no indexes of their own.
  static JointIndex make(CpuExec& exec, std::span<const DocumentMemory* const> documents, const Lookup& lookup,
                         const Progress& progress = {});

  /// Takes over saved indexes. blobs: [memory layers * kv heads], layer-major; they must outlive this: lists are used
  /// where they lie. entries: of each document. Throws InputError if they do not fit.
  static JointIndex load(CpuExec& exec, const EntryShape& shape, const Lookup& lookup,
                         std::span<const std::span<const std::byte>> blobs, std::vector<std::size_t> entries);

  /// What load() reads, layer-major. Each index is given up once it is saved, so that not all are there twice.
  std::vector<std::vector<std::byte>> save() &&;

  const KeyIndex& index(std::size_t layer_slot, std::size_t kv_head) const {
    return *indexes_[layer_slot * kv_heads_ + kv_head];
  }
  /// Of each document, in order.
  const std::vector<std::size_t>& entries_of_documents() const { return of_documents_; }
  /// Of all documents.
  std::size_t entries() const { return entries_; }
  /// Bytes that the lists take.
  std::size_t bytes() const;

 private:
  JointIndex(std::size_t indexes, std::size_t kv_heads, std::vector<std::size_t> entries);

  std::size_t kv_heads_;
  std::vector<std::size_t> of_documents_;
  std::size_t entries_;
  std::vector<std::unique_ptr<KeyIndex>> indexes_;  // [layers * kv_heads]
};

}  // namespace memlane
