#pragma once

#include "memory/key_index.h"

namespace memlane {

/// make_key_index() and load_key_index() for FAISS.
std::unique_ptr<KeyIndex> make_faiss_index(const Lookup& lookup, std::size_t head_dim);
std::unique_ptr<KeyIndex> load_faiss_index(const Lookup& lookup, std::size_t head_dim,
                                           std::span<const std::byte> bytes);

}  // namespace memlane
