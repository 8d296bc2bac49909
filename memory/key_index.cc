#include "memory/key_index.h"

#include "memory/faiss_index.h"
#include "memory/list_index.h"

namespace memlane {

std::unique_ptr<KeyIndex> make_key_index(const Lookup& lookup, std::size_t head_dim) {
  MEMLANE_EXPECTS(lookup.has_index());
  if (lookup.has_lists()) return std::make_unique<ListIndex>(ListSettings::of(lookup), head_dim);
  return make_faiss_index(lookup, head_dim);
}

std::unique_ptr<KeyIndex> make_whole_index(const Lookup& lookup, std::size_t head_dim, const MicroKernels& micro,
                                           const EntryRows& entries, const Watch& watch) {
  MEMLANE_EXPECTS(lookup.has_lists());
  return ListIndex::whole(ListSettings::of(lookup), head_dim, micro, entries, watch);
}

std::unique_ptr<KeyIndex> load_key_index(const Lookup& lookup, std::size_t head_dim, std::span<const std::byte> bytes) {
  MEMLANE_EXPECTS(lookup.has_index());
  if (lookup.has_lists()) return ListIndex::load(ListSettings::of(lookup), head_dim, bytes);
  return load_faiss_index(lookup, head_dim, bytes);
}

bool is_index_of(const Lookup& lookup, std::span<const std::byte> bytes) {
  if (lookup.has_lists()) return ListIndex::is_saved(ListSettings::of(lookup), bytes);
  return lookup.kind == Lookup::Kind::faiss && !ListIndex::is_saved_list_index(bytes);
}

}  // namespace memlane
