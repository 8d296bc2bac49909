#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "memory/key_index.h"
#include "memory/list_settings.h"

namespace memlane {

/// The lookups ivf and int8: keys in int8, in lists that search_lists() scans.
///
/// Why not a faiss::IndexIVF with a scanner of our own: its lists are one index's, with centroids for good. Here every
/// stretch of a document (a chunk) is clustered by itself when its first window comes, and windows append to it until
/// it is full. Full chunks are clustered anew, kMerged of one size together, then kMerged of these: the more keys are
/// clustered together the nearer are those of a list, and the fewer lists a search has to scan (docs/indexes.md). A key
/// is clustered as often as the memory has grown kMerged times as long; so adding a window costs, in the mean, next to
/// the same however long it is, as in log-structured merge trees (O'Neil et al. 1996). A document can be added, dropped
/// or merged without touching another's lists: a search ranks those of all chunks and documents together. A list also
/// knows the mean and variances of its keys and the mean of its values, for the estimate of what is not scanned.
class ListIndex : public KeyIndex {
 public:
  ListIndex(const ListSettings& settings, std::size_t head_dim) : settings_(settings), head_dim_(head_dim) {}
  /// The lists stay where they are in the bytes.
  static std::unique_ptr<ListIndex> load(const ListSettings& settings, std::size_t head_dim,
                                         std::span<const std::byte> bytes);
  /// Whether bytes are a saved index of these chunks and lists, or of any, in whatever version.
  static bool is_saved(const ListSettings& settings, std::span<const std::byte> bytes);
  static bool is_saved_list_index(std::span<const std::byte> bytes);
  /// Bytes that an index over so many entries takes, saved or not, about.
  static std::size_t bytes_for(const ListSettings& settings, std::size_t head_dim, std::size_t entries);
  /// Of them those that a loaded index does not leave where they are: means and the like.
  static std::size_t own_bytes_for(const ListSettings& settings, std::size_t head_dim, std::size_t entries);
  /// Bytes that adding entries takes meanwhile: so many at once, and in all, with keys of so many bytes.
  static std::size_t adding_bytes(const ListSettings& settings, std::size_t head_dim, std::size_t key_bytes,
                                  std::size_t at_once, std::size_t in_all);
  /// Of them those for clustering so many entries together, beside the index that comes of it.
  static std::size_t merging_bytes(const ListSettings& settings, std::size_t head_dim, std::size_t key_bytes,
                                   std::size_t entries);
  /// Chunks and lists of an index over so many entries, about.
  struct Extent {
    std::size_t chunks = 0, lists = 0;
  };
  static Extent extent_of(const ListSettings& settings, std::size_t entries);
  /// What is clustered together while a document grows from `before` entries to `after`: how many at a time, and all.
  static std::vector<std::pair<std::size_t, std::size_t>> merged_entries(const ListSettings& settings,
                                                                         std::size_t before, std::size_t after);
  /// Means that a key is compared with where so many entries are clustered together.
  static std::size_t means_compared(const ListSettings& settings, std::size_t entries);
  /// Lists of any indexes over so many entries of so many documents, at most.
  static std::size_t lists_at_most(const ListSettings& settings, std::size_t entries, std::size_t documents);

  /// An index whose lists are made of all entries together; nothing is added to it.
  static std::unique_ptr<ListIndex> whole(const ListSettings& settings, std::size_t head_dim, const MicroKernels& micro,
                                          const EntryRows& entries, const Watch& watch = unwatched);

  std::size_t training_size() const override { return 0; }
  void train(View<const float, 2>) override {}
  void set_metric(std::span<const float> metric) override { metric_.assign(metric.begin(), metric.end()); }
  void update(const MicroKernels& micro, const EntryRows& entries, const Watch& watch) override;
  std::size_t size() const override { return size_; }
  void search(View<const float, 2> queries, View<std::int64_t, 2> ids) const override;
  std::span<const ListChunk> chunks() const override { return views_; }
  std::size_t bytes() const override;
  std::vector<std::byte> save() const override;

 private:
  /// One list's keys: its own, or somewhere in the bytes that the index was loaded from until a key is added.
  struct List {
    KeyList keys;
    std::vector<std::byte> panels;
    std::vector<std::uint32_t> entries;
  };
  struct Chunk {
    std::size_t lists = 0;
    std::size_t capacity = 0;  ///< entries
    std::size_t count = 0;
    std::size_t level = 0;  ///< 0, and one more than that of the chunks that it was made of
    std::vector<List> of;
    std::vector<KeyList> views;
    Buffer<std::byte> mean_codes;  // as ListChunk has it, as all below
    Buffer<float> means, log_counts, value_means;
    Buffer<float> spreads, reaches, key_covariance, value_covariance;
    std::size_t cells() const { return cell_begins.empty() ? 0 : cell_begins.size() - 1; }
    std::vector<std::uint32_t> cell_begins;  // as ListCells has it, as the three below; empty: there are none
    Buffer<float> cell_means, cell_variances, cell_log_counts;
    std::vector<float> variances;  // [lists]: of keys, all elements together
    Buffer<std::byte> panels;      // of a merged chunk's lists, as
    Buffer<std::uint32_t> entries;
  };

  Chunk new_chunk(const MicroKernels& micro, View<const float, 2> keys) const;
  Chunk empty_chunk(std::size_t lists) const;
  void append(const MicroKernels& micro, Chunk& chunk, View<const float, 2> keys, View<const float, 2> values);
  void add_to_list(const MicroKernels& micro, Chunk& chunk, std::size_t list, std::span<const std::uint32_t> rows,
                   View<const float, 2> keys);
  void add_moments(const MicroKernels& micro, Chunk& chunk, std::size_t list, std::span<const std::uint32_t> rows,
                   View<const float, 2> keys, View<const float, 2> values) const;
  struct Merge {
    std::size_t first = 0;  ///< of the last chunks, which are clustered together; all of them: none
    std::size_t level = 0;  ///< of what comes of them
  };
  Merge merge() const;
  template <class Read>
  std::vector<std::uint32_t> cells_of(const MicroKernels& micro, std::size_t rows, std::size_t count, const Read& read,
                                      const Watch& watch) const;
  Chunk merged(const MicroKernels& micro, const EntryRows& entries, std::size_t begin, std::size_t end,
               std::size_t level, const Watch& watch) const;
  void set_key_moments(const MicroKernels& micro, Chunk& chunk, std::size_t list, std::span<const std::uint32_t> rows,
                       View<const float, 2> keys) const;
  void add_value_moments(const MicroKernels& micro, Chunk& chunk, std::span<const std::uint32_t> list_of,
                         const EntryRows& entries, std::size_t begin, const Watch& watch) const;
  void update_views(std::size_t first);
  void take(List& list) const;
  void add_covariances(const MicroKernels& micro, Chunk& chunk, View<const float, 2> keys,
                       View<const float, 2> values) const;
  static void update_spreads(Chunk& chunk);
  void set_cells(Chunk& chunk, std::vector<std::uint32_t> begins) const;
  std::vector<float> mean_rows(const Chunk& chunk) const;

  View<const float, 2> measured(View<const float, 2> rows, std::vector<float>& storage) const;
  std::vector<float> cluster(const MicroKernels& micro, View<const float, 2> keys, std::size_t lists) const;

  static constexpr std::size_t kMerged = 4;
  /// Lists of a merged chunk.
  static std::size_t merged_lists(const ListSettings& settings, std::size_t entries);

  ListSettings settings_;
  std::size_t head_dim_;
  std::vector<float> metric_;  // [head_dim, head_dim], or none
  std::size_t size_ = 0;
  std::vector<Chunk> chunks_;
  std::vector<ListChunk> views_;
};

}  // namespace memlane
