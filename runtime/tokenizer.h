#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace memlane {

/// Text to token ids and back, as Hugging Face's LlamaTokenizer does it over SentencePiece. The names of control tokens
/// in a text
/// ("</s>") are text like any other. Round trip: decode(encode(text)) is the text, but for U+2581, which SentencePiece
/// uses for the space and which so comes back as one, and for spaces that the model says to drop
/// (remove_extra_whitespaces: at both ends, and all but one of a run). Reading from several threads is safe.
class Tokenizer {
 public:
  /// Reads `model_dir`/tokenizer.model. Throws InputError if it is missing, damaged or of an unsupported kind.
  static Tokenizer open(const std::filesystem::path& model_dir);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// Texts above this many bytes are encoded in chunks.
  static constexpr std::size_t kChunkBytes = std::size_t{64} << 10;

  /// The ids of the text; `add_bos` puts bos_id() before them. Long text is cut into chunks of about `chunk_bytes` at
  /// places that no piece can cross, so the result never depends on it; where there is no such place (or in a unigram
  /// model, whose result depends on the whole text through rounding) a chunk grows. Throws InputError if the text is
  /// not valid UTF-8, naming the byte, or if there is no BOS.
  std::vector<int> encode(std::string_view text, bool add_bos, std::size_t chunk_bytes = kChunkBytes) const;

  /// The text of the ids, from the start of a text. Control tokens have none. Bytes that make no character become
  /// U+FFFD. Throws InputError if an id is not in 0..size() - 1.
  std::string decode(std::span<const int> ids) const;

  int bos_id() const;  // -1 if there is none
  int eos_id() const;  // -1 if there is none
  std::size_t size() const;
  /// Of the file's bytes: 32 hexadecimal digits.
  std::string fingerprint() const;

 private:
  friend class TextStream;
  struct State;
  explicit Tokenizer(std::unique_ptr<const State> state);

  std::unique_ptr<const State> state_;
};

/// Turns ids into text one at a time and never gives out part of a character. Keeps a reference to the tokenizer.
class TextStream {
 public:
  /// At the start of a text the space that encode() put before it is dropped.
  TextStream(const Tokenizer& tokenizer, bool at_start_of_text);

  /// The characters that this id completes; empty while one is incomplete. Throws InputError if the id is not in
  /// 0..size() - 1.
  std::string push(int id);

  /// The rest: a replacement character for each byte of an incomplete character. The stream goes on after it as if
  /// nothing was kept.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;  // the beginning of a character
  bool drop_space_;      // still at the start of the text
};

}  // namespace memlane
