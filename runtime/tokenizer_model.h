#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace memlane {

/// An entry of the vocabulary; its id is its place.
struct Piece {
  enum class Kind { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
  std::string text;  // UTF-8, not empty; a space is U+2581; a byte piece is "<0x0A>"
  Kind kind = Kind::normal;
};

/// What a tokenizer.model (SentencePiece's ModelProto) says, read without SentencePiece: it does not show its
/// normaliser's settings, and it trusts what it loads.
struct TokenizerModel {
  std::vector<Piece> pieces;
  bool is_bpe = false;  // else unigram
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  bool dummy_prefix = true;              // a space is put before the text
  bool remove_extra_whitespaces = true;  // spaces at both ends go, runs of them become one
  bool escape_whitespaces = true;        // spaces become U+2581
};

/// The byte that a byte piece stands for. `piece` is of that kind.
char byte_of(const Piece& piece);

/// Throws InputError, naming `file`, if `bytes` are no such model, damaged, or use something that is not supported (a
/// normaliser that rewrites characters, word or character models).
TokenizerModel parse_tokenizer_model(std::string_view bytes, const std::filesystem::path& file);

}  // namespace memlane
