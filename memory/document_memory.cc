#include "memory/document_memory.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <utility>

namespace memlane {

namespace {

std::uint64_t next_version() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

}  // namespace

DocumentMemory::DocumentMemory(EntryShape shape, Lookup lookup)
    : shape_(std::move(shape)),
      lookup_(std::move(lookup)),
      blocks_(shape_.layers.size() * shape_.kv_heads),
      version_(next_version()) {
  if (!lookup_.has_index()) return;
  for (std::size_t i = 0; i < shape_.layers.size() * shape_.kv_heads; ++i) {
    indexes_.push_back(make_key_index(lookup_, shape_.head_dim));
  }
}

void DocumentMemory::append(Segment segment) {
  version_ = next_version();
  entries_ += segment.count();
  segments_.push_back(std::move(segment));
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i].push_back(segments_.back().block(i / shape_.kv_heads, i % shape_.kv_heads));
  }
}

void DocumentMemory::use_stored(std::span<const std::byte* const> bytes) {
  MEMLANE_EXPECTS(bytes.size() <= segments_.size());
  version_ = next_version();
  const std::size_t first = segments_.size() - bytes.size();
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    Segment& segment = segments_[first + i];
    segment = Segment(shape_, segment.count(), bytes[i]);
    for (std::size_t b = 0; b < blocks_.size(); ++b) {
      blocks_[b][first + i] = segment.block(b / shape_.kv_heads, b % shape_.kv_heads);
    }
  }
}

void DocumentMemory::keep_newest(std::size_t entries) {
  MEMLANE_EXPECTS(indexes_.empty());
  version_ = next_version();
  std::size_t forgotten = 0;
  while (forgotten < segments_.size() && entries_ - segments_[forgotten].count() >= entries) {
    entries_ -= segments_[forgotten++].count();
  }
  const auto count = static_cast<std::ptrdiff_t>(forgotten);
  segments_.erase(segments_.begin(), segments_.begin() + count);
  for (auto& blocks : blocks_) blocks.erase(blocks.begin(), blocks.begin() + count);
}

void DocumentMemory::keep(std::span<const std::size_t> places) {
  MEMLANE_EXPECTS(indexes_.empty() && places.size() <= segments_.size());
  version_ = next_version();
  entries_ = 0;
  for (std::size_t to = 0; to < places.size(); ++to) {
    const std::size_t from = places[to];
    MEMLANE_EXPECTS(from < segments_.size() && (to == 0 || from > places[to - 1]));
    entries_ += segments_[from].count();
    if (from == to) continue;
    segments_[to] = std::move(segments_[from]);
    for (auto& blocks : blocks_) blocks[to] = blocks[from];
  }
  segments_.erase(segments_.begin() + static_cast<std::ptrdiff_t>(places.size()), segments_.end());
  for (auto& blocks : blocks_) blocks.resize(places.size());
}

const KeyIndex* DocumentMemory::index(std::size_t layer_slot, std::size_t kv_head) const {
  if (indexes_.empty() || indexed_entries_ != entries_) return nullptr;
  return indexes_[layer_slot * shape_.kv_heads + kv_head].get();
}

void DocumentMemory::update_indexes(CpuExec& exec, const Watch& watch) {
  if (indexes_.empty() || indexed_entries_ == entries_) return;
  if (indexes_.front()->training_size() > entries_) return;
  SharedWatch shared(watch);
  const Watch of_threads = std::ref(shared);
  shared.over([&] {
    exec.pool().run(indexes_.size(), [&](std::size_t item, std::size_t) {
      KeyIndex& index = *indexes_[item];
      const EntryRows rows(blocks_[item], shape_.head_dim);
      if (index.training_size() > 0) {
        Buffer<float> keys(entries_ * shape_.head_dim);
        rows.read_keys(0, entries_, keys.data());
        index.train(keys.view<2>({entries_, shape_.head_dim}));
      }
      index.update(exec.micro(), rows, of_threads);
    });
  });
  indexed_entries_ = entries_;
}

void DocumentMemory::set_metrics(std::span<const std::vector<float>> metrics) {
  MEMLANE_EXPECTS(metrics.size() == indexes_.size());
  for (std::size_t i = 0; i < indexes_.size(); ++i) indexes_[i]->set_metric(metrics[i]);
}

std::size_t DocumentMemory::index_bytes() const {
  std::size_t sum = 0;
  for (const auto& index : indexes_) sum += index->bytes();
  return sum;
}

std::vector<std::vector<std::byte>> DocumentMemory::save_indexes() const {
  std::vector<std::vector<std::byte>> saved;
  if (indexed_entries_ == 0) return saved;
  for (const auto& index : indexes_) saved.push_back(index->save());
  return saved;
}

void DocumentMemory::load_indexes(std::span<const std::span<const std::byte>> saved, std::size_t entries_covered) {
  MEMLANE_EXPECTS(!indexes_.empty());
  if (saved.size() != indexes_.size() || entries_covered > entries_) {
    input_error("stored indexes: expected {} over at most {} entries, found {} over {}; ingest again", indexes_.size(),
                entries_, saved.size(), entries_covered);
  }
  std::vector<std::unique_ptr<KeyIndex>> loaded;
  for (const auto& bytes : saved) {
    loaded.push_back(load_key_index(lookup_, shape_.head_dim, bytes));
    if (loaded.back()->size() != entries_covered) {
      input_error("stored indexes: expected {} keys in each, found {}; ingest again", entries_covered,
                  loaded.back()->size());
    }
    const std::size_t chunks = loaded.front()->chunks().size();  // a search takes each head's to be as many
    if (loaded.back()->chunks().size() != chunks) {
      input_error("stored indexes: expected {} chunks in each, found {}; ingest again", chunks,
                  loaded.back()->chunks().size());
    }
  }
  indexes_ = std::move(loaded);
  indexed_entries_ = entries_covered;
}

}  // namespace memlane
