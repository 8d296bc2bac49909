#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/staging.h"
#include "kernels/thread_pool.h"
#include "memory/cuda/entry_pieces.h"
#include "memory/memory.h"

namespace memlane {

/// How much of a GPU the entries of a memory may take.
struct CudaBudget {
  static constexpr std::size_t kPiece = std::size_t{256} << 20;

  std::size_t resident = std::numeric_limits<std::size_t>::max();  ///< bytes of entries that stay on the device
  bool streams = true;         ///< whether others may be streamed to it; else they are refused
  std::size_t piece = kPiece;  ///< bytes of one layer's entries that are attended to at once
};

/// A memory as the memory layers of a GPU see it. The host's segments stay what the memory is made of; the device has
/// copies of the first windows, made when they are first attended to and again for what documents gain. Windows beyond
/// the budget stay where they are on the host, perhaps in a mapped file, and are streamed through two staging buffers
/// for every layer of every pass: while one piece is attended to, the next is copied.
///
/// What a query gets does not depend, to the last bit, on which windows are resident: partials are made of the same
/// pieces and merged in their order, and a search finds the same entries.
class CudaMemory {
 public:
  /// memory, pool (which copies into pinned memory): must outlive this. Throws as require_supported does.
  CudaMemory(const Memory& memory, ThreadPool& pool, CudaBudget budget = {});

  /// Throws InputError if the memory's entries are not bfloat16, its heads larger than the kernels take, or its lookup
  /// is one that the GPU does not have.
  static void require_supported(const EntryShape& shape, const Lookup& lookup);

  bool empty() const { return memory_.empty(); }

  /// As Memory::attend. Throws InputError if there are more entries than a GPU can have or, where nothing is streamed,
  /// than fit on it.
  void attend(CudaExec& exec, std::size_t layer_slot, View<const float, 3, Cuda> queries, float scale, CudaPartial out);

  /// Brings what the device has up to what the documents are made of, as attend() does first. heads: of queries. Throws
  /// as attend().
  void follow(CudaExec& exec, std::size_t heads);
  /// Changes when follow() has changed anything: as long as it is the same, attend() queues the same work, if its
  /// arguments and the arrays of the device are the same and nothing is streamed.
  std::uint64_t version() const { return version_; }

  /// Windows that were streamed, rather than resident, the last time.
  std::size_t streamed_windows() const;

  /// Bytes of the device that passes of `tokens` tokens with so many query heads take, beside entries and staging, the
  /// kernels' scratch space included.
  static std::size_t workspace_bytes(const CudaExec& exec, const EntryShape& shape, const Lookup& lookup,
                                     std::size_t heads, std::size_t tokens);
  /// Bytes of the device that staging takes. window: entries of the largest window; piece: of the budget.
  static std::size_t staging_bytes(const EntryShape& shape, const Lookup& lookup, std::size_t heads, std::size_t window,
                                   std::size_t piece);

 private:
  using Queries = View<const float, 3, Cuda>;
  using Ids = View<std::int32_t, 3, Cuda>;
  using Scores = View<float, 3, Cuda>;

  /// A window of the memory where it lies on the host.
  struct Window {
    const std::byte* bytes = nullptr;
    std::size_t count = 0;
    friend bool operator==(const Window&, const Window&) = default;
  };
  /// Windows that one call of a kernel sees, and where the table of their blocks is.
  struct Group {
    EntryPiece windows;
    std::size_t table = 0;       // index of the first block: [layer slots, if resident][kv_heads][windows]
    std::size_t layer_step = 0;  // blocks from one layer's table to the next
    std::size_t tiles = 0;       // of one head
    std::size_t first_entry = 0;
  };

  void copy_resident(CudaExec& exec, const std::vector<Window>& windows, std::size_t resident);
  void copy(CudaExec& exec, const Window& window);
  void require_staging(CudaExec& exec, std::size_t heads);
  void make_groups(const std::vector<EntryPiece>& pieces);
  void make_tables(CudaExec& exec);
  void add_table(Group& group, std::size_t layer_slot, std::size_t buffer, std::vector<cuda::Block>& tables) const;

  bool searches() const { return memory_.lookup().kind != Lookup::Kind::dense; }
  std::size_t resident_groups() const;
  std::size_t staged_head_bytes(std::size_t count) const;
  cuda::Entries entries(const Group& group, std::size_t layer_slot) const;
  template <class Body>
  void for_each_group(std::size_t layer_slot, const Body& body);
  std::size_t stage(const Group& group, std::size_t layer_slot, std::byte* to);
  std::size_t gather_values(std::size_t layer_slot, std::span<const std::int32_t> ids, std::size_t heads,
                            std::byte* to);

  void attend_densely(CudaExec& exec, std::size_t layer_slot, Queries queries, float scale, CudaPartial out);
  void attend_to_best(CudaExec& exec, std::size_t layer_slot, Queries queries, float scale, CudaPartial out);
  void attend_to_found(CudaExec& exec, std::size_t layer_slot, Ids ids, Scores scores, float scale, CudaPartial out);
  void search(CudaExec& exec, std::size_t layer_slot, Queries queries, Ids ids, Scores scores);
  static void scan(CudaExec& exec, Queries queries, const cuda::Entries& entries, Ids ids, Scores scores);

  const Memory& memory_;
  ThreadPool& pool_;
  CudaBudget budget_;
  std::vector<Window> windows_;                // of the documents, one document behind the other; as last followed
  std::vector<std::size_t> first_entries_;     // of each window
  std::vector<CudaBuffer<std::byte>> copies_;  // of the first windows
  std::vector<Group> groups_;                  // resident ones first
  CudaBuffer<cuda::Block> tables_;
  bool followed_ = false;               // whether all of the above is complete
  std::uint64_t version_ = 0;           // how often it was changed
  std::optional<CudaStaging> staging_;  // made when something is streamed
  CudaPartialBuffer of_piece_;
  CudaBuffer<std::int32_t> ids_, more_ids_;
  CudaBuffer<float> scores_, more_scores_;
};

}  // namespace memlane
