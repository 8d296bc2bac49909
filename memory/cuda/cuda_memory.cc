#include "memory/cuda/cuda_memory.h"

#include <algorithm>

namespace memlane {

namespace {

/// Scratch space that a search may take at once; tokens are taken in pieces that fit.
constexpr std::size_t kSearchBytes = std::size_t{512} << 20;
/// Entries are counted in 32 bits, ids are signed.
constexpr std::size_t kMostEntries = (std::size_t{1} << 31) - 1;

/// Tokens [begin, end) of a partial.
CudaPartial slice(const CudaPartial& partial, std::size_t begin, std::size_t end) {
  return {partial.sum.slice(begin, end), partial.max.slice(begin, end), partial.weight.slice(begin, end)};
}

}  // namespace

CudaMemory::CudaMemory(const Memory& memory) : memory_(memory) {
  const EntryShape& shape = memory.shape();
  if (shape.dtype != DType::bf16) {
    input_error("--mem-dtype {}: expected bfloat16, the only type of entries on a GPU; use it, or --device cpu",
                name_of(shape.dtype));
  }
  if (shape.head_dim > kCudaMostHeadDim) {
    input_error("head_dim {}: expected at most {} on a GPU; use --device cpu", shape.head_dim, kCudaMostHeadDim);
  }
  if (memory.lookup().kind == Lookup::Kind::faiss) {
    input_error("--index {}: expected dense or exact, the lookups that a GPU has; use one of them, or --device cpu",
                memory.lookup().name());
  }
}

std::size_t CudaMemory::bytes(const EntryShape& shape, std::size_t entries, std::size_t window) {
  if (shape.layers.empty() || entries == 0) return 0;
  const std::size_t rest = entries % window;
  return entries / window * shape.segment_bytes(window) + (rest > 0 ? shape.segment_bytes(rest) : 0);
}

/// Copies what the documents gained. Segments do not change, so a copy is good as long as its source is where it was.
void CudaMemory::follow(CudaExec& exec) {
  std::size_t at = 0;
  bool changed = false;
  std::vector<const Segment*> segments;
  for (const DocumentMemory* document : memory_.documents()) {
    for (const Segment& segment : document->segments()) segments.push_back(&segment);
  }
  while (at < segments.size() && at < copies_.size() && copies_[at].source == segments[at]->bytes().data() &&
         copies_[at].count == segments[at]->count()) {
    ++at;
  }
  if (at < copies_.size()) {  // a document that is not the last one has grown, or segments were replaced
    copies_.erase(copies_.begin() + static_cast<std::ptrdiff_t>(at), copies_.end());
    changed = true;
  }
  for (; at < segments.size(); ++at, changed = true) copy(exec, *segments[at]);
  if (changed) make_tables(exec);
}

void CudaMemory::copy(CudaExec& exec, const Segment& segment) {
  const std::size_t size = segment.bytes().size();
  if (memory_.entries() > kMostEntries) {
    input_error("memory of {} entries: expected at most {} on a GPU; use --device cpu", memory_.entries(),
                kMostEntries);
  }
  if (size > exec.free_bytes()) {
    input_error(
        "memory of {} entries: expected {} more bytes on the GPU, found {} free; use --device cpu, fewer memory "
        "layers or a shorter text",
        memory_.entries(), size, exec.free_bytes());
  }
  Copy made{segment.bytes().data(), segment.count(), CudaBuffer<std::byte>(size)};
  detail::copy_to_device(exec, made.bytes.data(), segment.bytes().data(), size);
  copies_.push_back(std::move(made));
}

/// A block on the device lies in the copy as its source in the segment.
void CudaMemory::make_tables(CudaExec& exec) {
  const EntryShape& shape = memory_.shape();
  tables_.clear();
  for (std::size_t slot = 0; slot < shape.layers.size(); ++slot) {
    std::vector<cuda::Block> table;
    for (std::size_t head = 0; head < shape.kv_heads; ++head) {
      cuda::Block block;
      for (const Copy& copied : copies_) {
        const Segment layout(shape, copied.count, copied.bytes.data());  // addresses alone: nothing reads through it
        const EntryBlock at = layout.block(slot, head);
        block.keys = static_cast<const std::uint32_t*>(at.keys);
        block.values = static_cast<const std::uint16_t*>(at.values);
        block.count = static_cast<std::uint32_t>(copied.count);
        table.push_back(block);
        block.first_tile += cuda::tiles_for(block.count);
        block.first_entry += block.count;
      }
      tiles_ = block.first_tile;
    }
    tables_.push_back(uploaded(exec, table.data(), table.size()));
  }
  exec.synchronize();  // the tables on the host go away
}

cuda::Entries CudaMemory::entries(std::size_t layer_slot) const {
  cuda::Entries all;
  all.blocks = tables_[layer_slot].data();
  all.kv_heads = static_cast<std::uint32_t>(memory_.shape().kv_heads);
  all.block_count = static_cast<std::uint32_t>(copies_.size());
  all.tiles = static_cast<std::uint32_t>(tiles_);
  return all;
}

void CudaMemory::attend(CudaExec& exec, std::size_t layer_slot, View<const float, 3, Cuda> queries, float scale,
                        CudaPartial out) {
  MEMLANE_EXPECTS(!empty() && !queries.empty());
  follow(exec);
  if (memory_.lookup().kind == Lookup::Kind::dense) {
    return memlane::attend(exec, queries, entries(layer_slot), scale, Visibility::all(), out);
  }
  const std::size_t k = std::min(memory_.lookup().top_k, memory_.entries());
  const std::size_t piece = std::max<std::size_t>(1, kSearchBytes / (queries.extent(1) * top_k_row_bytes(k)));
  for (std::size_t begin = 0; begin < queries.extent(0); begin += piece) {
    const std::size_t end = std::min(queries.extent(0), begin + piece);
    attend_top_k(exec, layer_slot, queries.slice(begin, end), scale, slice(out, begin, end));
  }
}

void CudaMemory::attend_top_k(CudaExec& exec, std::size_t layer_slot, View<const float, 3, Cuda> queries, float scale,
                              CudaPartial out) {
  const std::size_t tokens = queries.extent(0), heads = queries.extent(1);
  const std::size_t k = std::min(memory_.lookup().top_k, memory_.entries());
  ids_.reserve_discarding(tokens * heads * k);
  scores_.reserve_discarding(tokens * heads * k);
  const auto ids = ids_.view<3>({tokens, heads, k});
  const auto scores = scores_.view<3>({tokens, heads, k});
  top_k_scan(exec, queries, entries(layer_slot), ids, scores);
  attend_selected(exec, queries, entries(layer_slot), ids, scores, scale, out);
}

}  // namespace memlane
