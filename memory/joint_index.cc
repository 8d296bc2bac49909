#include "memory/joint_index.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

#include "kernels/error.h"

namespace memlane {

JointIndex::JointIndex(std::size_t indexes, std::size_t kv_heads, std::vector<std::size_t> entries)
    : kv_heads_(kv_heads),
      of_documents_(std::move(entries)),
      entries_(std::accumulate(of_documents_.begin(), of_documents_.end(), std::size_t{0})),
      indexes_(indexes) {}

JointIndex JointIndex::load(CpuExec& exec, const EntryShape& shape, const Lookup& lookup,
                            std::span<const std::span<const std::byte>> blobs, std::vector<std::size_t> entries) {
  MEMLANE_EXPECTS(lookup.kind == Lookup::Kind::ivf);
  JointIndex joint(shape.layers.size() * shape.kv_heads, shape.kv_heads, std::move(entries));
  if (blobs.size() != joint.indexes_.size()) {
    input_error("stored joint index: expected {} indexes, found {}; make it again with `memlane memory index`",
                joint.indexes_.size(), blobs.size());
  }
  exec.pool().run(blobs.size(), [&](std::size_t item, std::size_t) {
    auto index = load_key_index(lookup, shape.head_dim, blobs[item]);
    if (index->size() != joint.entries_) {
      input_error("stored joint index: expected {} keys in each, found {}; make it again with `memlane memory index`",
                  joint.entries_, index->size());
    }
    joint.indexes_[item] = std::move(index);
  });
  const std::size_t chunks = joint.indexes_.front()->chunks().size();  // a search takes each head's to be as many
  for (const auto& index : joint.indexes_) {
    if (index->chunks().size() == chunks) continue;
    input_error("stored joint index: expected {} chunks in each, found {}; make it again with `memlane memory index`",
                chunks, index->chunks().size());
  }
  return joint;
}

std::size_t JointIndex::bytes() const {
  return std::accumulate(indexes_.begin(), indexes_.end(), std::size_t{0},
                         [](std::size_t sum, const auto& index) { return sum + index->bytes(); });
}

JointIndexMaker::JointIndexMaker(CpuExec& exec, std::span<const DocumentMemory* const> documents, const Lookup& lookup,
                                 Watch watch)
    : exec_(exec), watch_(std::move(watch)), documents_(documents.begin(), documents.end()), lookup_(lookup) {
  MEMLANE_EXPECTS(lookup.kind == Lookup::Kind::ivf && !documents.empty());
  const EntryShape& shape = documents.front()->shape();
  std::size_t entries = 0;
  for (const DocumentMemory* document : documents) {
    MEMLANE_EXPECTS(document->shape() == shape && document->entries() > 0);
    entries += document->entries();
  }
  MEMLANE_EXPECTS(entries <= std::numeric_limits<std::uint32_t>::max());  // as lists number them
  size_ = shape.layers.size() * shape.kv_heads;
}

std::vector<std::byte> JointIndexMaker::made(std::size_t slot, const Watch& watch) const {
  const EntryShape& shape = documents_.front()->shape();
  std::vector<EntryBlock> blocks;
  for (const DocumentMemory* document : documents_) {
    const auto of_document = document->blocks(slot / shape.kv_heads, slot % shape.kv_heads);
    blocks.insert(blocks.end(), of_document.begin(), of_document.end());
  }
  return make_whole_index(lookup_, shape.head_dim, exec_.micro(), EntryRows(blocks, shape.head_dim), watch)->save();
}

/// The next indexes, one for each thread.
void JointIndexMaker::make_some() {
  waiting_.resize(std::min(exec_.threads(), size_ - next_));
  SharedWatch shared(watch_);
  const Watch watch = std::ref(shared);
  try {
    shared.over([&] {
      exec_.pool().run(waiting_.size(),
                       [&](std::size_t i, std::size_t) { waiting_[waiting_.size() - 1 - i] = made(next_ + i, watch); });
    });
  } catch (...) {
    waiting_.clear();
    throw;
  }
}

std::vector<std::byte> JointIndexMaker::next() {
  MEMLANE_EXPECTS(next_ < size_);
  if (waiting_.empty()) make_some();
  std::vector<std::byte> saved = std::move(waiting_.back());
  waiting_.pop_back();
  ++next_;
  return saved;
}

}  // namespace memlane
