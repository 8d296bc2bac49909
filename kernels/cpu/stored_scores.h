#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <numeric>
#include <span>

#include "kernels/array.h"
#include "kernels/block_begins.h"
#include "kernels/cpu/micro_kernels.h"
#include "kernels/entries.h"

namespace memlane {

/// Scores of chosen keys as they are stored, for many rows of queries. A key of a panel is spread over as many lines of
/// memory as it has units, of which each holds keys of its neighbours as well. So keys are scored in their order: what
/// rows ask for of one panel is scored while it is in the caches.
class StoredScores {
 public:
  /// A key that a row asks for, and what it asked with.
  struct Request {
    std::uint32_t entry;
    std::uint32_t index;  ///< whatever the caller tells it by
  };

  /// rows, requests: at most.
  StoredScores(ScratchLayout& layout, std::size_t head_dim, std::size_t rows, std::size_t requests)
      : head_dim_(head_dim), pairs_(padded_head_dim(head_dim, DType::bf16) / 2) {
    halves_ = layout.take<float>(rows * 2 * pairs_);
    requests_ = layout.take<Request>(requests);
    sorted_ = layout.take<Request>(requests);
    begins_ = layout.take<std::uint32_t>(kDigits + 1);
  }

  /// Forgets requests. queries: [rows, head_dim], have to stay where they are.
  void begin(const MicroKernels& micro, const float* queries, std::size_t rows) {
    micro_ = &micro;
    queries_ = queries;
    count_ = 0;
    for (std::size_t row = 0; row < rows; ++row) {
      float* half = halves_ + row * 2 * pairs_;
      half[2 * pairs_ - 1] = 0;  // of an odd head_dim
      for (std::size_t d = 0; d < head_dim_; ++d) half[d % 2 * pairs_ + d / 2] = queries[row * head_dim_ + d];
    }
  }

  void add(Request request) { requests_[count_++] = request; }

  /// Calls take(request, score) for each request, in order of the entries, then of their indices if those
  /// rose with every add().
  /// blocks: of a kv head. row_of(index): whose query it is. read_ahead: see ListSearch.
  template <class RowOf, class Take>
  void score(std::span<const EntryBlock> blocks, const BlockBegins& begins, const RowOf& row_of,
             void (*read_ahead)(const void*, std::size_t), const Take& take) {
    sort(begins.entries());
    std::size_t block = 0;
    for (std::size_t i = 0; i < count_; ++i) {
      if (read_ahead != nullptr && i % kReadAhead == 0) {
        read_panels(blocks, begins, {requests_ + i, std::min(kReadAhead, count_ - i)}, read_ahead);
      }
      const Request& request = requests_[i];
      if (i + kAhead < count_ && requests_[i + kAhead].entry < begins[block + 1]) {
        fetch(blocks[block], requests_[i + kAhead].entry - begins[block]);
      }
      if (begins[block + 1] <= request.entry) block = begins.block_of(request.entry);
      take(request, score_of(row_of(request.index), blocks[block], request.entry - begins[block]));
    }
  }

 private:
  static constexpr std::size_t kAhead = 4;         // requests whose keys are on their way
  static constexpr std::size_t kReadAhead = 1024;  // those on their way from a disk
  static constexpr int kDigitBits = 11;            // that are sorted by at once
  static constexpr std::uint32_t kDigits = std::uint32_t{1} << kDigitBits;
  static constexpr std::size_t kFewRequests = 2048;  // that are sorted by comparing

  /// By entry, stably.
  void sort(std::uint64_t entries) {
    if (count_ <= kFewRequests) {
      std::sort(requests_, requests_ + count_, [](const Request& a, const Request& b) {
        return a.entry != b.entry ? a.entry < b.entry : a.index < b.index;
      });
      return;
    }
    for (int shift = 0; shift < static_cast<int>(std::bit_width(entries)); shift += kDigitBits) {
      const auto digit = [shift](const Request& request) { return request.entry >> shift & (kDigits - 1); };
      std::fill_n(begins_, kDigits + 1, 0U);
      for (std::size_t i = 0; i < count_; ++i) ++begins_[digit(requests_[i]) + 1];
      std::partial_sum(begins_, begins_ + kDigits, begins_);
      for (std::size_t i = 0; i < count_; ++i) sorted_[begins_[digit(requests_[i])]++] = requests_[i];
      std::swap(requests_, sorted_);
    }
  }

  /// Reads ahead the panels of keys, each once: where it crosses pages they are read together.
  void read_panels(std::span<const EntryBlock> blocks, const BlockBegins& begins, std::span<const Request> requests,
                   void (*read_ahead)(const void*, std::size_t)) const {
    const std::byte* last = nullptr;
    for (const Request& request : requests) {
      const std::size_t at = begins.block_of(request.entry);
      const EntryBlock& block = blocks[at];
      const std::size_t bytes = padded_head_dim(head_dim_, block.dtype) * size_of(block.dtype) * kPanelEntries;
      const std::size_t panel = (request.entry - begins[at]) / kPanelEntries;
      const std::byte* const keys = static_cast<const std::byte*>(block.keys) + panel * bytes;
      if (keys != last) read_ahead(keys, bytes);
      last = keys;
    }
  }

  /// Asks for the lines that a key is in.
  void fetch(const EntryBlock& block, std::size_t entry) const {
    const std::size_t units = padded_head_dim(head_dim_, block.dtype) * size_of(block.dtype) / 4;
    const auto* key = static_cast<const std::uint32_t*>(block.keys) + entry / kPanelEntries * units * kPanelEntries +
                      entry % kPanelEntries;
    for (std::size_t i = 0; i < units; ++i) __builtin_prefetch(key + i * kPanelEntries);
  }

  float score_of(std::size_t row, const EntryBlock& block, std::size_t entry) const {
    if (block.dtype == DType::bf16) {
      const auto* units = static_cast<const std::uint32_t*>(block.keys);
      return micro_->score_key_bf16(halves_ + row * 2 * pairs_, units + entry / kPanelEntries * pairs_ * kPanelEntries,
                                    pairs_, entry % kPanelEntries);
    }
    const float* query = queries_ + row * head_dim_;
    return with_type(block.dtype, [&](auto type) {
      using T = decltype(type);
      constexpr std::size_t kUnit = 4 / sizeof(T);
      const T* key = static_cast<const T*>(block.keys) + key_offset(entry, 0, head_dim_, block.dtype);
      float score = 0;
      for (std::size_t d = 0; d < head_dim_; ++d) {
        score += query[d] * to_float(key[d / kUnit * kUnit * kPanelEntries + d % kUnit]);
      }
      return score;
    });
  }

  const MicroKernels* micro_ = nullptr;
  std::size_t head_dim_ = 0, pairs_ = 0;
  const float* queries_ = nullptr;
  float* halves_ = nullptr;  // [rows][2][pairs]: a query's even elements, then the odd ones
  Request *requests_ = nullptr, *sorted_ = nullptr;
  std::size_t count_ = 0;            // of requests
  std::uint32_t* begins_ = nullptr;  // of digits
};

}  // namespace memlane
