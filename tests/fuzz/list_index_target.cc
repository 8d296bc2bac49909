#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "memory/list_index.h"
#include "tests/fuzz/targets.h"
#include "tests/reference/float_entries.h"

namespace memlane {
extern const MicroKernels micro_kernels_portable;
}

namespace memlane::fuzz {

namespace {

/// Bytes in a piece of the heap that ends with them, aligned as in a memory file.
class Copy {
 public:
  explicit Copy(std::span<const std::byte> bytes) : size_(bytes.size()) {
    void* data = nullptr;
    MEMLANE_EXPECTS(size_ == 0 || ::posix_memalign(&data, 64, size_) == 0);
    data_.reset(static_cast<std::byte*>(data));
    if (size_ > 0) std::memcpy(data_.get(), bytes.data(), size_);
  }
  std::span<const std::byte> bytes() const { return {data_.get(), size_}; }

 private:
  struct Free {
    void operator()(std::byte* data) const { std::free(data); }
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t size_;
};

constexpr std::size_t kMostGrown = 1000;  // entries of indexes that are added to

/// What an index was saved with comes from the file's header and the model; here from its own head, if that is a size
/// that those could say.
struct Made {
  std::size_t head_dim = 0;
  ListSettings settings;
};

Made made_with(std::span<const std::byte> bytes) {
  const auto number = [&](std::size_t at) {
    std::uint64_t value = 0;
    if (bytes.size() >= 8 * at + 8) std::memcpy(&value, bytes.data() + 8 * at, 8);
    return value;
  };
  Made made;
  made.head_dim = std::clamp<std::uint64_t>(number(1), 1, 128);
  made.settings.chunk = std::clamp<std::uint64_t>(number(4), 1, std::uint64_t{1} << 16);
  made.settings.lists = std::clamp<std::uint64_t>(number(5), 1, 256);
  return made;
}

/// Everything that a search reads.
void use(const ListIndex& index, std::size_t head_dim) {
  std::size_t entries = 0;
  for (const ListChunk& chunk : index.chunks()) {
    for (std::size_t list = 0; list < chunk.lists; ++list) {
      const KeyList& keys = chunk.list[list];
      entries += keys.count;
      for (std::size_t i = 0; i < keys.count; ++i) MEMLANE_EXPECTS(keys.entries[i] < index.size());
      read_all({keys.panels, panels_for(keys.count) * key_list_panel_bytes(head_dim)});
    }
    const std::size_t columns = panels_for(head_dim) * kPanelEntries;
    for (const auto& [from, count] :
         {std::pair(chunk.means, panels_for(chunk.lists) * kPanelEntries * head_dim),
          std::pair(chunk.spreads, chunk.lists), std::pair(chunk.log_counts, chunk.lists),
          std::pair(chunk.reaches, chunk.lists), std::pair(chunk.value_means, chunk.lists * columns),
          std::pair(chunk.key_covariance, columns * head_dim), std::pair(chunk.value_covariance, columns * head_dim)}) {
      read_all(std::as_bytes(std::span(from, count)));
    }
    const ListCells& cells = chunk.cells;
    for (std::size_t cell = 0; cell < cells.count; ++cell) MEMLANE_EXPECTS(cells.begins[cell] < cells.begins[cell + 1]);
    MEMLANE_EXPECTS(cells.count == 0 || (cells.begins[0] == 0 && cells.begins[cells.count] == chunk.lists));
    const std::size_t filled_cells = panels_for(cells.count) * kPanelEntries;
    for (const auto& [from, count] :
         {std::pair(cells.means, filled_cells * head_dim), std::pair(cells.variances, filled_cells * head_dim),
          std::pair(cells.log_counts, filled_cells)}) {
      read_all(std::as_bytes(std::span(from, count)));
    }
    read_all({chunk.mean_codes, panels_for(chunk.lists) * key_list_panel_bytes(head_dim)});
  }
  MEMLANE_EXPECTS(entries == index.size());
}

}  // namespace

bool list_index(Input input) {
  const Copy bytes(std::as_bytes(input));
  const Made made = made_with(bytes.bytes());
  return accepts([&] {
    const auto index = ListIndex::load(made.settings, made.head_dim, bytes.bytes());
    use(*index, made.head_dim);
    const std::vector<std::byte> saved = index->save();
    const Copy again(saved);
    MEMLANE_EXPECTS(ListIndex::load(made.settings, made.head_dim, again.bytes())->save() == saved);
    const std::size_t before = index->size();
    if (before > kMostGrown) return;
    const std::vector<float> rows((before + 5) * made.head_dim, 0.5F);
    const reference::FloatEntries more(rows.data(), rows.data(), before + 5, made.head_dim);
    index->update(micro_kernels_portable, more.rows(), unwatched);
    MEMLANE_EXPECTS(index->size() == before + 5);
    use(*index, made.head_dim);
  });
}

}  // namespace memlane::fuzz
