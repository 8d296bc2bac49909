#include "memory/entry_rows.h"

#include <algorithm>

namespace memlane {

/// read_some(block, first, last, out) reads entries of one block.
template <class Read>
void EntryRows::read(std::size_t begin, std::size_t end, float* out, const Read& read_some) const {
  MEMLANE_EXPECTS(begin <= end && end <= size());
  if (begin == end) return;
  for (std::size_t block = begins_.block_of(begin); begin < end; ++block) {
    const std::size_t last = std::min(end, begins_[block + 1]);
    read_some(blocks_[block], begin - begins_[block], last - begins_[block], out);
    out += (last - begin) * head_dim_;
    begin = last;
  }
}

void EntryRows::read_keys(std::size_t begin, std::size_t end, float* out) const {
  read(begin, end, out, [&](const EntryBlock& block, std::size_t first, std::size_t last, float* to) {
    for (std::size_t i = first; i < last; ++i, to += head_dim_) read_key(block, i, head_dim_, to);
  });
}

void EntryRows::read_values(std::size_t begin, std::size_t end, float* out) const {
  read(begin, end, out, [&](const EntryBlock& block, std::size_t first, std::size_t last, float* to) {
    with_type(block.dtype, [&](auto type) {
      const auto* rows = static_cast<const decltype(type)*>(block.values);
      std::transform(rows + first * head_dim_, rows + last * head_dim_, to, [](auto value) { return to_float(value); });
    });
  });
}

}  // namespace memlane
