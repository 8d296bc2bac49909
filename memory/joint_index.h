#pragma once

#include <cstddef>
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
  /// Takes over saved indexes. blobs: [memory layers * kv heads], layer-major; they must outlive this: lists are used
  /// where they lie. entries: of each document. Throws InputError if they do not fit.
  static JointIndex load(CpuExec& exec, const EntryShape& shape, const Lookup& lookup,
                         std::span<const std::span<const std::byte>> blobs, std::vector<std::size_t> entries);

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

/// Makes the indexes of a JointIndex, as what load() reads. As many are made at a time as there are threads: all of
/// them may take gigabytes.
class JointIndexMaker {
 public:
  /// documents: one or more, of one shape, none empty; they need no indexes of their own, and outlive this, as exec.
  /// watch: called by one thread at a time, with entries of all indexes; what it throws ends next() within moments on
  /// all threads.
  JointIndexMaker(CpuExec& exec, std::span<const DocumentMemory* const> documents, const Lookup& lookup,
                  Watch watch = unwatched);

  /// Indexes in all.
  std::size_t size() const { return size_; }
  /// Those from 0 on, layer-major, one with each call.
  std::vector<std::byte> next();

 private:
  std::vector<std::byte> made(std::size_t slot, const Watch& watch) const;
  void make_some();

  CpuExec& exec_;
  Watch watch_;
  std::vector<const DocumentMemory*> documents_;
  Lookup lookup_;
  std::size_t size_, next_ = 0;
  std::vector<std::vector<std::byte>> waiting_;  // made and not given out, in reverse order
};

}  // namespace memlane
