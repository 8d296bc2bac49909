#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "memory/mapped_file.h"
#include "runtime/tokenizer.h"

namespace memlane {

/// A document to read.
struct Document {
  std::string name;
  std::filesystem::path path;
  std::string text_fingerprint;
  std::uint64_t text_bytes = 0;
  std::vector<std::int32_t> ids;  ///< BOS and the text
};

/// Reads and tokenizes a text file. Throws InputError, naming the file, if it is missing, empty or not UTF-8.
Document read_document(const std::filesystem::path& path, const std::string& name, const Tokenizer& tokenizer);

/// The text of a file, checked: not empty, UTF-8.
MappedFile open_text(const std::filesystem::path& path);

/// Whitespace-separated token ids. Throws InputError naming file and place.
std::vector<std::int32_t> read_ids(const std::filesystem::path& path);

/// Where text from standard input is kept beside a memory file until its document is complete.
std::filesystem::path spool_path(const std::filesystem::path& memory);

/// Copies standard input to `path`. Throws InputError, and removes the file, if it cannot be written whole; refuses to overwrite a file
/// with another text, since nobody could give that text again.
void spool_standard_input(const std::filesystem::path& path);

}  // namespace memlane
