#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
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
MappedFile open_text(const std::filesystem::path& path, std::string_view what = "document");

/// Throws InputError, naming the option that the text was given as, if it is not UTF-8.
void require_utf8(std::string_view option, std::string_view text);

/// Whitespace-separated token ids, each below vocab_size. Throws InputError naming file and place.
std::vector<std::int32_t> read_ids(const std::filesystem::path& path, std::size_t vocab_size);

/// Text from standard input, kept in a file beside the memory file until its document is complete: nobody could give it
/// again.
class Spool {
 public:
  explicit Spool(const std::filesystem::path& memory) : path_(memory.string() + ".stdin") {}
  /// Removes the file if this run made it and has not begun to read it into memory.
  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// Copies standard input to the file. A file that an unfinished run left is kept if it holds the same text, so that
  /// the same command continues; otherwise throws InputError. Throws Interrupted when `stop` is set.
  void read_standard_input(const std::atomic<bool>& stop);
  /// From here on the file outlives failures.
  void keep() { made_ = false; }
  void remove() noexcept;

 private:
  std::filesystem::path path_;
  bool made_ = false;
};

}  // namespace memlane
