#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/documents.h"
#include "memory/memory_file.h"

namespace memlane {

/// What is to be done with one document.
struct Job {
  Document document;
  std::optional<std::uint32_t> stored;  ///< its id, if the file has it already
  std::string stored_name;              ///< what it is called there
  bool complete = false;
  std::size_t tokens_done = 0;
  bool spooled = false;  ///< its text came from standard input
};

/// Finds the documents that the file has already, by their text.
void match_stored(std::vector<Job>& jobs, const MemoryFile& file);

/// A name stands for one text. file: the memory file; null before there is one. Throws InputError that says which does
/// not.
void require_new_names(const std::vector<Job>& jobs, const MemoryFile* file);

}  // namespace memlane
