#include "memory/joint_index.h"

#include <limits>
#include <mutex>
#include <numeric>
#include <utility>

#include "kernels/error.h"

namespace memlane {

JointIndex::JointIndex(std::size_t indexes, std::size_t kv_heads, std::vector<std::size_t> entries)
    : kv_heads_(kv_heads),
      of_documents_(std::move(entries)),
      entries_(std::accumulate(of_documents_.begin(), of_documents_.end(), std::size_t{0})),
      indexes_(indexes) {}

JointIndex JointIndex::make(CpuExec& exec, std::span<const DocumentMemory* const> documents, const Lookup& lookup,
                            const Progress& progress) {
  MEMLANE_EXPECTS(lookup.kind == Lookup::Kind::ivf && !documents.empty());
  const EntryShape& shape = documents.front()->shape();
  std::vector<std::size_t> entries;
  for (const DocumentMemory* document : documents) {
    MEMLANE_EXPECTS(document->shape() == shape && document->entries() > 0);
    entries.push_back(document->entries());
  }
  JointIndex joint(shape.layers.size() * shape.kv_heads, shape.kv_heads, std::move(entries));
  MEMLANE_EXPECTS(joint.entries_ <= std::numeric_limits<std::uint32_t>::max());  // as lists number them
  std::mutex mutex;
  std::size_t made = 0;
  exec.pool().run(joint.indexes_.size(), [&](std::size_t item, std::size_t) {
    std::vector<EntryBlock> blocks;
    for (const DocumentMemory* document : documents) {
      const auto of_document = document->blocks(item / shape.kv_heads, item % shape.kv_heads);
      blocks.insert(blocks.end(), of_document.begin(), of_document.end());
    }
    joint.indexes_[item] = make_whole_index(lookup, shape.head_dim, exec.micro(), EntryRows(blocks, shape.head_dim));
    const std::lock_guard lock(mutex);
    if (progress) progress(++made);
  });
  return joint;
}

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
  return joint;
}

std::vector<std::vector<std::byte>> JointIndex::save() && {
  std::vector<std::vector<std::byte>> saved;
  for (auto& index : indexes_) {
    saved.push_back(index->save());
    index.reset();
  }
  return saved;
}

std::size_t JointIndex::bytes() const {
  return std::accumulate(indexes_.begin(), indexes_.end(), std::size_t{0},
                         [](std::size_t sum, const auto& index) { return sum + index->bytes(); });
}

}  // namespace memlane
