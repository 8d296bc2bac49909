#include "apps/documents.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <span>
#include <system_error>

#include "kernels/error.h"
#include "memory/file_io.h"
#include "memory/hash.h"
#include "runtime/utf8.h"

namespace memlane {

MappedFile open_text(const std::filesystem::path& path, std::string_view what) {
  MappedFile file(path, what);
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
  if (document.ids.size() < 2) input_error("{}: expected a text, found nothing but spaces", path.string());
  return document;
}

void require_utf8(std::string_view option, std::string_view text) {
  if (const auto at = first_invalid_utf8(text)) {
    input_error("{}: expected UTF-8 text, found byte 0x{:02x} at offset {}; check the encoding of the terminal", option,
                static_cast<unsigned char>(text[*at]), *at);
  }
}

std::vector<std::int32_t> read_ids(const std::filesystem::path& path, std::size_t vocab_size) {
  const MappedFile file(path, "list of token ids");
  const std::string_view text = file.text();
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  std::vector<std::int32_t> ids;
  for (std::size_t at = text.find_first_not_of(kSpace); at != std::string_view::npos;
       at = text.find_first_not_of(kSpace, at)) {
    const std::string_view word = text.substr(at, text.find_first_of(kSpace, at) - at);
    std::int32_t id = -1;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    const bool whole = error == std::errc() && end == word.data() + word.size();
    if (!whole || id < 0 || static_cast<std::size_t>(id) >= vocab_size) {
      input_error("{}: expected whitespace-separated token ids from 0 to {}, found '{}' as number {}", path.string(),
                  vocab_size - 1, word.substr(0, 40), ids.size() + 1);
    }
    ids.push_back(id);
    at += word.size();
  }
  if (ids.empty()) input_error("{}: expected whitespace-separated token ids, found none", path.string());
  return ids;
}

namespace {

/// Calls take(offset, piece) with all of standard input. Ctrl-C does not end a read, so the flag is looked at between
/// short waits.
template <class Take>
void read_pieces(const std::atomic<bool>& stop, const Take& take) {
  constexpr int kWaitMilliseconds = 100;
  std::vector<std::byte> buffer(std::size_t{1} << 20);
  for (std::uint64_t offset = 0;;) {
    struct ::pollfd input = {STDIN_FILENO, POLLIN, 0};
    const int ready = ::poll(&input, 1, kWaitMilliseconds);
    if (stop) throw Interrupted("stopped while reading standard input; nothing was stored");
    if (ready <= 0) continue;
    const ::ssize_t got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      input_error("standard input: cannot be read: {}; give the text through a pipe or name a file",
                  std::strerror(errno));
    if (got == 0 && offset == 0) input_error("standard input: expected a text, found nothing");
    if (got == 0) return take(offset, std::span<const std::byte>());
    take(offset, std::span<const std::byte>(buffer).first(static_cast<std::size_t>(got)));
    offset += static_cast<std::uint64_t>(got);
  }
}

}  // namespace

Spool::~Spool() {
  if (made_) remove();
}

void Spool::remove() noexcept {
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

void Spool::read_standard_input(const std::atomic<bool>& stop) {
  std::error_code ignored;
  if (std::filesystem::exists(path_, ignored)) {
    const MappedFile left(path_, "text of an earlier run");
    read_pieces(stop, [&](std::uint64_t offset, std::span<const std::byte> piece) {
      const auto expected = left.bytes().subspan(std::min<std::uint64_t>(offset, left.bytes().size()));
      const bool same =
          piece.empty() ? expected.empty()
                        : piece.size() <= expected.size() && std::equal(piece.begin(), piece.end(), expected.begin());
      if (same) return;
      input_error(
          "{}: holds the text of an earlier run that was not finished, and standard input is another text; finish that "
          "one "
          "with this file as the document, or remove it",
          path_.string());
    });
    return;
  }
  // Under another name until it is whole: half a text must not be taken for one.
  WritableFile spool = WritableFile::create(path_.string() + ".new", {});
  try {
    read_pieces(stop, [&](std::uint64_t offset, std::span<const std::byte> piece) {
      spool.write_at(offset, piece, piece.size());
    });
    spool.sync();
    spool.rename_to(path_);
  } catch (...) {
    spool.remove();
    throw;
  }
  made_ = true;
}

}  // namespace memlane
