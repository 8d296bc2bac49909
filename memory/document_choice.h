#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "memory/memory_file.h"

namespace memlane {

/// The documents of a file that words name, by their ids: ascending, each once. A word is the name or the id of a
/// document, "name:" and its name, "id:" and its id, or several of these separated by commas; a name may have commas
/// itself. Dropped documents cannot be chosen. Throws InputError, beginning with `option`, for a word that names no
/// document (saying which there are) or more than one.
std::vector<std::uint32_t> choose_documents(const MemoryFile& file, std::string_view option,
                                            std::span<const std::string> words);

/// "0 'a.txt', 1 'b.txt' and 7 more": the documents that a file has.
std::string list_of_documents(const MemoryFile& file);

}  // namespace memlane
