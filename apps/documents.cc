#include "apps/documents.h"

#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <limits>

#include "kernels/error.h"
#include "memory/file_io.h"
#include "memory/hash.h"
#include "runtime/utf8.h"

namespace memlane {

MappedFile open_text(const std::filesystem::path& path) {
  MappedFile file(path, "document");
  if (file.text().empty()) input_error("{}: expected a text, found an empty file", path.string());
  if (const auto at = first_invalid_utf8(file.text())) {
    input_error("{}: expected UTF-8 text, found byte 0x{:02x} at offset {}; convert it first, for example with iconv",
                path.string(), static_cast<unsigned char>(file.text()[*at]), *at);
  }
  return file;
}

Document read_document(const std::filesystem::path& path, const std::string& name, const Tokenizer& tokenizer) {
  const MappedFile file = open_text(path);
  Document document;
  document.name = name;
  document.path = path;
  document.text_bytes = file.bytes().size();
  document.text_fingerprint = Fingerprint().add(file.bytes()).hex();
  document.ids = tokenizer.encode(file.text(), true);
  return document;
}

std::vector<std::int32_t> read_ids(const std::filesystem::path& path) {
  const MappedFile file(path, "list of token ids");
  const std::string_view text = file.text();
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  std::vector<std::int32_t> ids;
  for (std::size_t at = text.find_first_not_of(kSpace); at != std::string_view::npos; at = text.find_first_not_of(kSpace, at)) {
    const std::string_view word = text.substr(at, text.find_first_of(kSpace, at) - at);
    std::int32_t id = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size() || id < 0) {
      input_error("{}: expected whitespace-separated token ids from 0, found '{}' as number {}", path.string(), word.substr(0, 40),
                  ids.size() + 1);
    }
    ids.push_back(id);
    at += word.size();
    if (at >= text.size()) break;
  }
  if (ids.empty()) input_error("{}: expected whitespace-separated token ids, found none", path.string());
  return ids;
}

std::filesystem::path spool_path(const std::filesystem::path& memory) { return memory.string() + ".stdin"; }

void spool_standard_input(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored)) {
    input_error("{}: holds the text of an earlier run that was not finished; finish it with 'memlane ingest' and this file as the document, or remove it",
                path.string());
  }
  WritableFile spool = WritableFile::create(path, {});
  try {
    std::vector<std::byte> piece(std::size_t{1} << 20);
    std::uint64_t written = 0;
    while (true) {
      const ::ssize_t got = ::read(STDIN_FILENO, piece.data(), piece.size());
      if (got < 0 && errno == EINTR) throw Interrupted("stopped while reading standard input; nothing was stored");
      if (got < 0) input_error("standard input: cannot be read: {}", std::strerror(errno));
      if (got == 0) break;
      const auto count = static_cast<std::size_t>(got);
      spool.write_at(written, std::span(piece).first(count), count);
      written += count;
    }
    spool.sync();
    if (written == 0) input_error("standard input: expected a text, found nothing");
  } catch (...) {
    spool.remove();
    throw;
  }
}

}  // namespace memlane
