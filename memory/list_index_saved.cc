// A ListIndex as bytes. Numbers are little-endian; every part begins at a multiple of 64:
//
//   [head 64]
//   for each chunk: [chunk head 64][u32 counts of the lists][u32 begins of cells and the end, if it has cells]
//   [f32 variances][means][their codes][value means][covariances of keys, of values], then for each list
//   [u32 entries][panels]
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "kernels/error.h"
#include "memory/list_index.h"

namespace memlane {

namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::array<char, 8> kMagic = {'M', 'L', 'L', 'I', 'S', 'T', 'S', '4'};

struct Head {
  std::array<char, 8> magic;
  std::uint64_t head_dim, entries, chunks, chunk_entries, lists;
  std::array<std::uint64_t, 2> zero;
};
static_assert(sizeof(Head) == kAlignment);
struct ChunkHead {
  std::uint64_t lists, capacity, count, level, cells;
  std::array<std::uint64_t, 3> zero;
};
static_assert(sizeof(ChunkHead) == kAlignment);

[[noreturn]] void refuse(std::string_view found) {
  input_error("stored index: expected lists of keys as memlane saves them, found {}; make the index again", found);
}

class Writer {
 public:
  template <class T>
  void put(const T* data, std::size_t count) {
    const std::size_t at = bytes_.size();
    bytes_.resize(at + (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment);
    if (count > 0) std::memcpy(bytes_.data() + at, data, count * sizeof(T));
  }
  std::vector<std::byte> bytes_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  /// The next `count` elements, where they lie.
  template <class T>
  const T* take(std::size_t count) {
    const std::size_t left = bytes_.size() - at_;
    if (count > left / sizeof(T)) refuse("an end before its end");
    const auto* found = reinterpret_cast<const T*>(bytes_.data() + at_);
    at_ += std::min(left, (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment);
    return found;
  }
  template <class T>
  T head() {
    T head;
    std::memcpy(&head, take<std::byte>(sizeof head), sizeof head);
    return head;
  }
  template <class T>
  void copy(Buffer<T>& to) {
    std::memcpy(to.data(), take<T>(to.size()), to.bytes());
  }
  std::size_t left() const { return bytes_.size() - at_; }
  bool at_end() const { return left() == 0; }

 private:
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
};

/// Where the lists of a chunk's cells begin, and their end; nothing where it has none.
std::vector<std::uint32_t> read_cells(Reader& reader, const ChunkHead& chunk) {
  if (chunk.cells == 0) return {};
  if (chunk.level == 0 || chunk.cells > chunk.lists / ListCells::kLeastLists) refuse("a chunk with too many cells");
  const std::uint32_t* begins = reader.take<std::uint32_t>(chunk.cells + 1);
  bool whole = begins[0] == 0 && begins[chunk.cells] == chunk.lists;
  for (std::size_t cell = 0; cell < chunk.cells; ++cell) whole = whole && begins[cell] < begins[cell + 1];
  if (!whole) refuse("a list in no cell, or in two");
  return {begins, begins + chunk.cells + 1};
}

Head head_of(std::span<const std::byte> bytes) {
  Head head{};
  if (bytes.size() >= sizeof head) std::memcpy(&head, bytes.data(), sizeof head);
  return head;
}

}  // namespace

bool ListIndex::is_saved_list_index(std::span<const std::byte> bytes) {
  const auto magic = head_of(bytes).magic;
  return std::equal(kMagic.begin(), kMagic.end() - 1, magic.begin());
}

bool ListIndex::is_saved(const ListSettings& settings, std::span<const std::byte> bytes) {
  const Head head = head_of(bytes);
  return head.magic == kMagic && head.chunk_entries == settings.chunk && head.lists == settings.lists;
}

std::vector<std::byte> ListIndex::save() const {
  Writer writer;
  const Head head = {kMagic, head_dim_, size_, chunks_.size(), settings_.chunk, settings_.lists, {}};
  writer.put(&head, 1);
  for (const Chunk& chunk : chunks_) {
    const ChunkHead chunk_head = {chunk.lists, chunk.capacity, chunk.count, chunk.level, chunk.cells(), {}};
    writer.put(&chunk_head, 1);
    std::vector<std::uint32_t> counts;
    for (const List& list : chunk.of) counts.push_back(static_cast<std::uint32_t>(list.keys.count));
    writer.put(counts.data(), counts.size());
    writer.put(chunk.cell_begins.data(), chunk.cell_begins.size());
    writer.put(chunk.variances.data(), chunk.variances.size());
    writer.put(chunk.means.data(), chunk.means.size());
    writer.put(chunk.mean_codes.data(), chunk.mean_codes.size());
    writer.put(chunk.value_means.data(), chunk.value_means.size());
    writer.put(chunk.key_covariance.data(), chunk.key_covariance.size());
    writer.put(chunk.value_covariance.data(), chunk.value_covariance.size());
    for (const List& list : chunk.of) {
      writer.put(list.keys.entries, list.keys.count);
      writer.put(list.keys.panels, panels_for(list.keys.count) * key_list_panel_bytes(head_dim_));
    }
  }
  return std::move(writer.bytes_);
}

std::unique_ptr<ListIndex> ListIndex::load(const ListSettings& settings, std::size_t head_dim,
                                           std::span<const std::byte> bytes) {
  if (!is_saved(settings, bytes)) refuse("something else, or other chunks and lists than asked for");
  MEMLANE_EXPECTS(reinterpret_cast<std::uintptr_t>(bytes.data()) % sizeof(float) == 0);
  Reader reader(bytes);
  const auto head = reader.head<Head>();
  if (head.head_dim != head_dim) refuse("keys of another size");
  if (head.entries > bytes.size()) refuse("more entries than it has bytes");
  auto index = std::make_unique<ListIndex>(settings, head_dim);
  for (std::uint64_t c = 0; c < head.chunks; ++c) {
    const auto chunk_head = reader.head<ChunkHead>();
    const bool merged = chunk_head.level > 0;
    if (chunk_head.lists < 1 || chunk_head.lists > (merged ? chunk_head.count : settings.lists)) {
      refuse("a chunk with too many lists");
    }
    if (chunk_head.count > bytes.size()) refuse("a chunk with more entries than it has bytes");
    // Before a chunk is allocated for them: the lists' moments, and two covariances.
    if (reader.left() / sizeof(float) < (chunk_head.lists + 2 * head_dim) * head_dim) refuse("an end before its end");
    Chunk chunk = index->empty_chunk(chunk_head.lists);
    if (merged) chunk.capacity = chunk_head.count;
    if (chunk_head.capacity != chunk.capacity || chunk_head.count > chunk.capacity) refuse("a chunk of another size");
    chunk.count = chunk_head.count;
    chunk.level = chunk_head.level;
    const std::uint32_t* counts = reader.take<std::uint32_t>(chunk.lists);
    std::vector<std::uint32_t> cells = read_cells(reader, chunk_head);
    const float* variances = reader.take<float>(chunk.lists);
    chunk.variances.assign(variances, variances + chunk.lists);
    reader.copy(chunk.means);
    reader.copy(chunk.mean_codes);
    reader.copy(chunk.value_means);
    reader.copy(chunk.key_covariance);
    reader.copy(chunk.value_covariance);
    std::vector<bool> seen(chunk.count);
    std::size_t found = 0;
    for (std::size_t list = 0; list < chunk.lists; ++list) {
      const std::size_t count = counts[list];
      KeyList& keys = chunk.of[list].keys;
      keys.entries = reader.take<std::uint32_t>(count);
      keys.panels = reader.take<std::byte>(panels_for(count) * key_list_panel_bytes(head_dim));
      keys.count = count;
      for (std::size_t i = 0; i < count; ++i) {
        const std::size_t in_chunk = keys.entries[i] - index->size_;  // wraps below the chunk's first
        if (in_chunk >= chunk.count || seen[in_chunk]) refuse("an entry in no list, or in two");
        seen[in_chunk] = true;
      }
      found += count;
      if (count > 0) chunk.log_counts.data()[list] = static_cast<float>(std::log(static_cast<double>(count)));
    }
    if (found != chunk.count) refuse("an entry in no list");
    if (chunk.count > 0) index->update_spreads(chunk);
    if (!cells.empty()) index->set_cells(chunk, std::move(cells));
    index->size_ += chunk.count;
    index->chunks_.push_back(std::move(chunk));
  }
  if (index->size_ != head.entries || !reader.at_end()) refuse("other entries than it says");
  index->update_views(0);
  return index;
}

}  // namespace memlane
