#include "memory/cuda/cuda_memory.h"

#include <algorithm>
#include <cstring>

namespace memlane {

namespace {

/// Scratch space that a search may take at once; tokens are taken in turns that fit.
constexpr std::size_t kSearchBytes = std::size_t{512} << 20;
/// Entries are counted in 32 bits, ids are signed.
constexpr std::size_t kMostEntries = (std::size_t{1} << 31) - 1;
/// Rows whose values one thread gathers at a time.
constexpr std::size_t kGatheredRows = 64;

/// Tokens [begin, end) of a partial.
CudaPartial slice(const CudaPartial& partial, std::size_t begin, std::size_t end) {
  return {partial.sum.slice(begin, end), partial.max.slice(begin, end), partial.weight.slice(begin, end)};
}

/// Tokens that a scan takes at once.
std::size_t scanned_tokens(std::size_t heads, std::size_t k) {
  return std::max<std::size_t>(1, kSearchBytes / (heads * top_k_row_bytes(k)));
}

/// Tokens that are searched for at once, the memory being read for each such turn: what two lists and the space to join
/// them take of each.
std::size_t searched_tokens(std::size_t heads, std::size_t k) {
  return std::max<std::size_t>(scanned_tokens(heads, k), kSearchBytes / (heads * k * 8 * sizeof(float)));
}

/// Bytes of the values that the rows of one token attend to.
std::size_t gathered_bytes(const EntryShape& shape, std::size_t heads, std::size_t k) {
  return heads * k * shape.head_dim * size_of(shape.dtype);
}

}  // namespace

CudaMemory::CudaMemory(const Memory& memory, ThreadPool& pool, CudaBudget budget)
    : memory_(memory), pool_(pool), budget_(budget) {
  require_supported(memory.shape(), memory.lookup());
}

void CudaMemory::require_supported(const EntryShape& shape, const Lookup& lookup) {
  if (shape.dtype != DType::bf16) {
    input_error("--mem-dtype {}: expected bfloat16, the only type of entries on a GPU; use it, or --device cpu",
                name_of(shape.dtype));
  }
  if (shape.head_dim > kCudaMostHeadDim) {
    input_error("head_dim {}: expected at most {} on a GPU; use --device cpu", shape.head_dim, kCudaMostHeadDim);
  }
  if (lookup.has_index()) {
    input_error("--index {}: expected dense or exact, the lookups that a GPU has; use one of them, or --device cpu",
                lookup.name());
  }
  if (lookup.kind != Lookup::Kind::dense && lookup.top_k > kCudaMostBest) {
    input_error("--top-k {}: expected at most {} on a GPU; use fewer, or --index dense", lookup.top_k, kCudaMostBest);
  }
}

std::size_t CudaMemory::workspace_bytes(const CudaExec& exec, const EntryShape& shape, const Lookup& lookup,
                                        std::size_t heads, std::size_t tokens) {
  if (shape.layers.empty()) return 0;
  if (lookup.kind == Lookup::Kind::dense) {
    return tokens * heads * (shape.head_dim + 2) * sizeof(float) +
           attend_scratch_bytes(exec, tokens, heads, shape.head_dim);
  }
  const std::size_t k = lookup.top_k;
  const std::size_t lists = std::min(tokens, searched_tokens(heads, k)) * heads * k * 2 * sizeof(float);
  const std::size_t scan = std::min(tokens, scanned_tokens(heads, k)) * heads * top_k_row_bytes(k);
  return 2 * lists + std::max(scan, 2 * lists);
}

std::size_t CudaMemory::staging_bytes(const EntryShape& shape, const Lookup& lookup, std::size_t heads,
                                      std::size_t window, std::size_t piece) {
  if (shape.layers.empty()) return 0;
  const std::size_t gathered = lookup.kind == Lookup::Kind::dense ? 0 : gathered_bytes(shape, heads, lookup.top_k);
  return CudaStaging::kBuffers * std::max({piece, layer_bytes(shape, window), gathered});
}

std::size_t CudaMemory::streamed_windows() const {
  return windows_.size() - copies_.size();
}

/// Brings copies and tables up to what the documents are made of. Segments do not change and, on a GPU, no document
/// drops any: a copy is good as long as its source is where it was.
void CudaMemory::follow(CudaExec& exec, std::size_t heads) {
  std::vector<Window> windows;
  for (const DocumentMemory* document : memory_.documents()) {
    for (const Segment& segment : document->segments()) windows.push_back({segment.bytes().data(), segment.count()});
  }
  if (followed_ && windows == windows_) return;
  followed_ = false;
  ++version_;
  if (memory_.entries() > kMostEntries) {
    input_error("memory of {} entries: expected at most {} on a GPU; use --device cpu", memory_.entries(),
                kMostEntries);
  }
  std::vector<std::size_t> counts;
  for (const Window& window : windows) counts.push_back(window.count);
  const std::vector<EntryPiece> pieces = cut_into_pieces(memory_.shape(), counts, budget_.piece, budget_.resident);
  std::size_t resident = 0;
  for (const EntryPiece& piece : pieces) resident = piece.resident ? piece.end : resident;
  if (resident < windows.size() && !budget_.streams) {
    input_error(
        "memory of {} entries: expected at most {} bytes of them on the GPU, which has no room left to stream more; "
        "use --device cpu, fewer memory layers, a smaller --window or a shorter text",
        memory_.entries(), budget_.resident);
  }
  copy_resident(exec, windows, resident);
  windows_ = std::move(windows);
  make_groups(pieces);

  if (resident < windows_.size()) require_staging(exec, heads);
  make_tables(exec);
  followed_ = true;
}

/// As much as is planned for, so that it does not grow with the last piece.
void CudaMemory::require_staging(CudaExec& exec, std::size_t heads) {
  std::size_t largest = 0;
  for (const Window& window : windows_) largest = std::max(largest, window.count);
  const std::size_t bytes =
      staging_bytes(memory_.shape(), memory_.lookup(), heads, largest, budget_.piece) / CudaStaging::kBuffers;
  if (staging_ && staging_->bytes() >= bytes) return;
  staging_.reset();  // first free, so that both need not fit
  staging_.emplace(exec, bytes);
}

/// Makes copies_ those of windows [0, resident), keeping what is there of them. If this throws, nothing is followed.
void CudaMemory::copy_resident(CudaExec& exec, const std::vector<Window>& windows, std::size_t resident) {
  std::size_t same = 0;
  while (same < std::min({resident, copies_.size(), windows_.size()}) && windows[same] == windows_[same]) ++same;
  windows_.clear();
  groups_.clear();
  copies_.erase(copies_.begin() + static_cast<std::ptrdiff_t>(std::min(same, copies_.size())), copies_.end());
  for (std::size_t window = same; window < resident; ++window) copy(exec, windows[window]);
}

void CudaMemory::copy(CudaExec& exec, const Window& window) {
  const std::size_t size = memory_.shape().segment_bytes(window.count);
  if (size > exec.free_bytes()) {
    input_error(
        "memory of {} entries: expected {} more bytes on the GPU, as planned, found {} free; free it of other "
        "programs, or use --device cpu",
        memory_.entries(), size, exec.free_bytes());
  }
  CudaBuffer<std::byte> made(size);
  detail::copy_to_device(exec, made.data(), window.bytes, size);
  copies_.push_back(std::move(made));
}

/// A search finds the same however entries are grouped, so all that are resident are searched at once.
void CudaMemory::make_groups(const std::vector<EntryPiece>& pieces) {
  first_entries_.clear();
  std::size_t entries = 0;
  for (const Window& window : windows_) {
    first_entries_.push_back(entries);
    entries += window.count;
  }
  for (const EntryPiece& piece : pieces) {
    if (searches() && piece.resident && !groups_.empty()) {
      groups_.back().windows.end = piece.end;
    } else {
      groups_.push_back({.windows = piece});
      groups_.back().first_entry = first_entries_[piece.begin];
    }
  }
}

std::size_t CudaMemory::resident_groups() const {
  return static_cast<std::size_t>(
      std::count_if(groups_.begin(), groups_.end(), [](const Group& group) { return group.windows.resident; }));
}

/// Bytes of one head of a streamed window: its keys and values, or, where entries are searched for, its keys.
std::size_t CudaMemory::staged_head_bytes(std::size_t count) const {
  const EntryShape& shape = memory_.shape();
  return shape.key_bytes(count) + (searches() ? 0 : shape.value_bytes(count));
}

/// Tables of all groups: a resident group's for every layer, a streamed one's for whichever layer is in its buffer.
void CudaMemory::make_tables(CudaExec& exec) {
  std::vector<cuda::Block> tables;
  const std::size_t resident = resident_groups();
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    Group& group = groups_[i];
    group.table = tables.size();
    const std::size_t layers = group.windows.resident ? memory_.shape().layers.size() : 1;
    for (std::size_t slot = 0; slot < layers; ++slot) {
      add_table(group, slot, (i - resident) % CudaStaging::kBuffers, tables);
    }
    group.layer_step = group.windows.resident ? (tables.size() - group.table) / layers : 0;
  }
  tables_.reserve_discarding(tables.size());
  detail::copy_to_device(exec, tables_.data(), tables.data(), tables.size() * sizeof(cuda::Block));
  exec.synchronize();  // the tables on the host go away
}

/// buffer: which one the group is streamed through, unless it is resident. A block on the device lies in the copy as
/// its source in the segment.
void CudaMemory::add_table(Group& group, std::size_t layer_slot, std::size_t buffer,
                           std::vector<cuda::Block>& tables) const {
  const EntryShape& shape = memory_.shape();
  for (std::size_t head = 0; head < shape.kv_heads; ++head) {
    cuda::Block block;
    std::size_t offset = 0;  // of a window in the staging buffer
    for (std::size_t window = group.windows.begin; window < group.windows.end; ++window) {
      const std::size_t count = windows_[window].count;
      const std::byte* keys = nullptr;
      if (group.windows.resident) {  // addresses alone: nothing reads through it
        keys =
            static_cast<const std::byte*>(Segment(shape, count, copies_[window].data()).block(layer_slot, head).keys);
      } else {
        keys = staging_->device(buffer) + offset + head * staged_head_bytes(count);
      }
      block.keys = reinterpret_cast<const std::uint32_t*>(keys);
      block.values = reinterpret_cast<const std::uint16_t*>(keys + shape.key_bytes(count));
      if (!group.windows.resident && searches()) block.values = nullptr;
      block.count = static_cast<std::uint32_t>(count);
      tables.push_back(block);
      block.first_tile += cuda::tiles_for(block.count);
      block.first_entry += block.count;
      offset += shape.kv_heads * staged_head_bytes(count);
    }
    group.tiles = block.first_tile;
  }
}

cuda::Entries CudaMemory::entries(const Group& group, std::size_t layer_slot) const {
  cuda::Entries all;
  all.blocks = tables_.data() + group.table + layer_slot * group.layer_step;
  all.kv_heads = static_cast<std::uint32_t>(memory_.shape().kv_heads);
  all.block_count = static_cast<std::uint32_t>(group.windows.end - group.windows.begin);
  all.tiles = static_cast<std::uint32_t>(group.tiles);
  return all;
}

/// body(group), in order of the windows, for groups whose entries of the layer are on the device when the work runs
/// that body queues.
template <class Body>
void CudaMemory::for_each_group(std::size_t layer_slot, const Body& body) {
  const std::size_t resident = resident_groups();
  for (std::size_t i = 0; i < resident; ++i) body(groups_[i]);
  if (resident == groups_.size()) return;
  stream_through(
      *staging_, groups_.size() - resident,
      [&](std::size_t i, std::byte* host) { return stage(groups_[resident + i], layer_slot, host); },
      [&](std::size_t i, const std::byte*) { body(groups_[resident + i]); });
}

/// Copies a group's entries of a layer, or their keys, as add_table() says that they lie. Returns their bytes.
std::size_t CudaMemory::stage(const Group& group, std::size_t layer_slot, std::byte* to) {
  const std::size_t kv_heads = memory_.shape().kv_heads;
  std::vector<std::size_t> offsets;
  std::size_t bytes = 0;
  for (std::size_t window = group.windows.begin; window < group.windows.end; ++window) {
    offsets.push_back(bytes);
    bytes += kv_heads * staged_head_bytes(windows_[window].count);
  }
  pool_.run(offsets.size() * kv_heads, [&](std::size_t item, std::size_t) {
    const std::size_t head = item % kv_heads;
    const Window& window = windows_[group.windows.begin + item / kv_heads];
    const std::size_t size = staged_head_bytes(window.count);
    const Segment segment(memory_.shape(), window.count, window.bytes);
    std::memcpy(to + offsets[item / kv_heads] + head * size, segment.block(layer_slot, head).keys, size);
  });
  return bytes;
}

void CudaMemory::attend(CudaExec& exec, std::size_t layer_slot, Queries queries, float scale, CudaPartial out) {
  MEMLANE_EXPECTS(!empty() && !queries.empty());
  follow(exec, queries.extent(1));
  if (!searches()) return attend_densely(exec, layer_slot, queries, scale, out);
  const std::size_t heads = queries.extent(1);
  const std::size_t k = std::min(memory_.lookup().top_k, memory_.entries());
  // What is streamed is read once for each turn: those are as long as the lists permit.
  const bool streamed = streamed_windows() > 0;
  const std::size_t turn = streamed ? searched_tokens(heads, k) : scanned_tokens(heads, k);
  for (std::size_t begin = 0; begin < queries.extent(0); begin += turn) {
    const std::size_t end = std::min(queries.extent(0), begin + turn);
    attend_to_best(exec, layer_slot, queries.slice(begin, end), scale, slice(out, begin, end));
  }
}

void CudaMemory::attend_densely(CudaExec& exec, std::size_t layer_slot, Queries queries, float scale, CudaPartial out) {
  bool first = true;
  for_each_group(layer_slot, [&](const Group& group) {
    const CudaPartial to = first ? out : of_piece_.get(queries.extent(0), queries.extent(1), queries.extent(2));
    memlane::attend(exec, queries, entries(group, layer_slot), scale, Visibility::all(), to);
    if (!first) merge(exec, out, to);
    first = false;
  });
}

void CudaMemory::attend_to_best(CudaExec& exec, std::size_t layer_slot, Queries queries, float scale, CudaPartial out) {
  const std::array<std::size_t, 3> extents = {queries.extent(0), queries.extent(1),
                                              std::min(memory_.lookup().top_k, memory_.entries())};
  const std::size_t size = extents[0] * extents[1] * extents[2];
  ids_.reserve_discarding(size);
  scores_.reserve_discarding(size);
  const Ids ids = ids_.view<3>(extents);
  const Scores scores = scores_.view<3>(extents);
  search(exec, layer_slot, queries, ids, scores);
  if (streamed_windows() > 0) return attend_to_found(exec, layer_slot, ids, scores, scale, out);
  attend_selected(exec, queries, entries(groups_.front(), layer_slot), ids, scores, scale, out);
}

/// The best entries of all groups: those of each are joined to those of the groups before it.
void CudaMemory::search(CudaExec& exec, std::size_t layer_slot, Queries queries, Ids ids, Scores scores) {
  bool first = true;
  for_each_group(layer_slot, [&](const Group& group) {
    if (first) {
      scan(exec, queries, entries(group, layer_slot), ids, scores);
      first = false;
      return;
    }
    more_ids_.reserve_discarding(ids.size());
    more_scores_.reserve_discarding(ids.size());
    const Ids more = more_ids_.view<3>(ids.extents());
    const Scores more_scores = more_scores_.view<3>(ids.extents());
    scan(exec, queries, entries(group, layer_slot), more, more_scores);
    join_best(exec, ids, scores, more, more_scores, group.first_entry);
  });
}

void CudaMemory::scan(CudaExec& exec, Queries queries, const cuda::Entries& entries, Ids ids, Scores scores) {
  const std::size_t turn = scanned_tokens(queries.extent(1), ids.extent(2));
  for (std::size_t begin = 0; begin < queries.extent(0); begin += turn) {
    const std::size_t end = std::min(queries.extent(0), begin + turn);
    top_k_scan(exec, queries.slice(begin, end), entries, ids.slice(begin, end), scores.slice(begin, end));
  }
}

/// Attends to what a search of streamed keys found: its values are gathered on the host, and only they are copied.
void CudaMemory::attend_to_found(CudaExec& exec, std::size_t layer_slot, Ids ids, Scores scores, float scale,
                                 CudaPartial out) {
  const std::size_t tokens = ids.extent(0), heads = ids.extent(1), k = ids.extent(2);
  const std::size_t head_dim = memory_.shape().head_dim;
  Buffer<std::int32_t> found(ids.size());
  download(exec, ids, found.view<3>(ids.extents()));
  const std::size_t turn = staging_->bytes() / gathered_bytes(memory_.shape(), heads, k);
  MEMLANE_EXPECTS(turn > 0);
  const auto end_of = [&](std::size_t i) { return std::min(tokens, (i + 1) * turn); };
  stream_through(
      *staging_, (tokens + turn - 1) / turn,
      [&](std::size_t i, std::byte* host) {
        const std::size_t first = i * turn * heads * k, size = (end_of(i) - i * turn) * heads * k;
        return gather_values(layer_slot, std::span(found.data() + first, size), heads, host);
      },
      [&](std::size_t i, const std::byte* device) {
        const std::size_t begin = i * turn, end = end_of(i);
        const View<const BFloat16, 4, Cuda> values(reinterpret_cast<const BFloat16*>(device),
                                                   {end - begin, heads, k, head_dim});
        attend_gathered(exec, values, ids.slice(begin, end), scores.slice(begin, end), scale, slice(out, begin, end));
      });
}

/// Writes the values of entries: ids [tokens, heads, k], to [tokens, heads, k, head_dim]; where an id is -1, nothing.
/// Returns the bytes of all.
std::size_t CudaMemory::gather_values(std::size_t layer_slot, std::span<const std::int32_t> ids, std::size_t heads,
                                      std::byte* to) {
  const EntryShape& shape = memory_.shape();
  const std::size_t group = heads / shape.kv_heads;
  const std::size_t bytes = shape.head_dim * size_of(shape.dtype);
  const std::size_t k = std::min(memory_.lookup().top_k, memory_.entries());
  const std::size_t rows = ids.size() / k;
  pool_.run((rows + kGatheredRows - 1) / kGatheredRows, [&](std::size_t item, std::size_t) {
    const std::size_t end = std::min(rows, (item + 1) * kGatheredRows) * k;
    for (std::size_t i = item * kGatheredRows * k; i < end; ++i) {
      if (ids[i] < 0) continue;
      const auto id = static_cast<std::size_t>(ids[i]);
      const auto behind = std::upper_bound(first_entries_.begin(), first_entries_.end(), id);
      const auto at = static_cast<std::size_t>(behind - first_entries_.begin()) - 1;
      const Segment segment(shape, windows_[at].count, windows_[at].bytes);
      const EntryBlock block = segment.block(layer_slot, i / k % heads / group);
      std::memcpy(to + i * bytes, static_cast<const std::byte*>(block.values) + (id - first_entries_[at]) * bytes,
                  bytes);
    }
  });
  return ids.size() * bytes;
}

}  // namespace memlane
