#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/exec.h"
#include "memory/key_index.h"
#include "memory/lookup.h"
#include "memory/segment.h"

namespace memlane {

/// The memory of one document: its segments in order and, for a lookup with indexes, one per memory layer and key/value
/// head.
class DocumentMemory {
 public:
  DocumentMemory(EntryShape shape, Lookup lookup);

  /// Appends a segment, in time that does not depend on how many there are. The indexes follow at the next
  /// update_indexes().
  void append(Segment segment);

  /// Goes on with other bytes in place of those of the last bytes.size() segments, which it frees: the same entries,
  /// kept alive and unchanged by somebody else (a mapped file).
  void use_stored(std::span<const std::byte* const> bytes);

  /// Forgets the oldest segments as long as `entries` or more are left without them. Not for lookups with indexes.
  void keep_newest(std::size_t entries);
  /// Forgets all segments but those at these places, ascending. Not for lookups with indexes.
  void keep(std::span<const std::size_t> places);

  /// Brings the indexes up to the entries: trains those that have waited for enough keys, adds what they lack. No
  /// tokens are computed again; keys come from the segments. watch: called by one thread at a time, with entries of all
  /// indexes.
  void update_indexes(CpuExec& exec, const Watch& watch = unwatched);

  /// KeyIndex::set_metric of each index, layer-major.
  void set_metrics(std::span<const std::vector<float>> metrics);

  std::size_t entries() const { return entries_; }
  const std::vector<Segment>& segments() const { return segments_; }
  const EntryShape& shape() const { return shape_; }
  const Lookup& lookup() const { return lookup_; }

  /// All entries of a memory layer and head: one block for each segment. Valid until version() changes.
  std::span<const EntryBlock> blocks(std::size_t layer_slot, std::size_t kv_head) const {
    return blocks_[layer_slot * shape_.kv_heads + kv_head];
  }

  /// Another number whenever blocks() change, and of every document that is made.
  std::uint64_t version() const { return version_; }

  /// The index of a layer and head if it holds every entry, else null (a lookup without indexes, or not enough keys to
  /// train it yet).
  const KeyIndex* index(std::size_t layer_slot, std::size_t kv_head) const;

  /// Entries that the indexes hold (all hold the same), and their bytes, layer-major; empty while they hold none.
  std::size_t indexed_entries() const { return indexed_entries_; }
  std::vector<std::vector<std::byte>> save_indexes() const;
  /// Bytes that lists take.
  std::size_t index_bytes() const;
  /// Takes over saved indexes that cover the first `entries_covered` entries. Throws InputError if they do not fit. The
  /// bytes must outlive this.
  void load_indexes(std::span<const std::span<const std::byte>> saved, std::size_t entries_covered);

 private:
  EntryShape shape_;
  Lookup lookup_;
  std::vector<Segment> segments_;
  std::size_t entries_ = 0;
  std::vector<std::vector<EntryBlock>> blocks_;     // [layers * kv_heads], each [segments]
  std::vector<std::unique_ptr<KeyIndex>> indexes_;  // [layers * kv_heads], or none
  std::size_t indexed_entries_ = 0;
  std::uint64_t version_;
};

}  // namespace memlane
