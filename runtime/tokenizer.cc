#include "runtime/tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "kernels/error.h"
#include "memory/hash.h"
#include "memory/mapped_file.h"
#include "runtime/model_folder.h"
#include "runtime/tokenizer_model.h"
#include "runtime/utf8.h"

namespace memlane {

namespace {

constexpr std::size_t kLargestFile = std::size_t{64} << 20;  // bytes; the largest known have 5 million
constexpr std::string_view kSpaceSymbol = "\xe2\x96\x81";    // U+2581
constexpr std::string_view kUnknownText = " \xe2\x81\x87 ";  // what SentencePiece shows for <unk>

/// Where a text may be cut so that its parts give the ids of the whole. BPE merges neighbours whose union is a piece;
/// where no piece holds both sides of a place, the two sides cannot influence each other.
struct CutRules {
  bool before_space = false;    // no piece goes on with U+2581 after another character
  bool before_newline = false;  // no piece has a newline in it
  bool drop_space = false;      // the dummy prefix of the next chunk stands for the space
  bool drop_prefix = false;     // the dummy prefix before a newline is its own piece, and too much
};

bool continues_over_space(std::string_view piece) {
  while (piece.starts_with(kSpaceSymbol)) piece.remove_prefix(kSpaceSymbol.size());
  return piece.find(kSpaceSymbol) != std::string_view::npos;
}

bool has_space(std::string_view piece) {
  return piece.find(kSpaceSymbol) != std::string_view::npos || piece.find(' ') != std::string_view::npos;
}

CutRules cut_rules(const TokenizerModel& model) {
  bool over_space = false;
  bool over_newline = false;
  bool space_is_piece = false;
  for (const Piece& piece : model.pieces) {
    if (piece.kind == Piece::Kind::byte || piece.kind == Piece::Kind::control || piece.kind == Piece::Kind::unknown)
      continue;
    // User-defined pieces are matched before anything else, so one that only begins with a space matters too.
    const bool user_defined = piece.kind == Piece::Kind::user_defined;
    over_space |= user_defined ? has_space(piece.text) : continues_over_space(piece.text);
    over_newline |= piece.text.find('\n') != std::string::npos;
    space_is_piece |= piece.kind == Piece::Kind::normal && piece.text == kSpaceSymbol;
  }
  CutRules rules;
  // Without byte fallback neighbouring unknown characters become one id, across any place.
  const bool plain = model.is_bpe && model.byte_fallback && model.escape_whitespaces && !model.whitespace_as_suffix;
  if (!plain) return rules;
  // Without dummy prefix the space would begin the next chunk, where it must not be removed as extra.
  rules.before_space = !over_space && (model.dummy_prefix || !model.remove_extra_whitespaces);
  rules.drop_space = model.dummy_prefix;
  rules.before_newline = !over_newline && (!model.dummy_prefix || space_is_piece);
  rules.drop_prefix = model.dummy_prefix;
  return rules;
}

bool is_safe_cut(const CutRules& rules, std::string_view text, std::size_t at) {
  const std::string_view left = text.substr(0, at);
  // Spaces at the end of a chunk might be removed as extra, and U+2581 with them.
  if (left.ends_with(' ') || left.ends_with(kSpaceSymbol)) return false;
  if (text[at] == '\n') return rules.before_newline;
  if (text[at] != ' ' || !rules.before_space) return false;
  const std::string_view right = text.substr(at + 1);
  return !right.empty() && !right.starts_with(' ') && !right.starts_with(kSpaceSymbol);
}

/// The first safe cut from `from` (which is above 0) on; the end of the text if there is none.
std::size_t find_cut(const CutRules& rules, std::string_view text, std::size_t from) {
  if (!rules.before_space && !rules.before_newline) return text.size();
  for (std::size_t at = text.find_first_of(" \n", from); at != std::string_view::npos;
       at = text.find_first_of(" \n", at + 1)) {
    if (is_safe_cut(rules, text, at)) return at;
  }
  return text.size();
}

/// The bytes that a piece adds to a text.
std::string piece_text(const Piece& piece) {
  switch (piece.kind) {
    case Piece::Kind::control:
      return "";
    case Piece::Kind::unknown:
      return std::string(kUnknownText);
    case Piece::Kind::byte:
      return std::string(1, byte_of(piece));
    default:
      break;
  }
  std::string text;
  for (std::string_view rest = piece.text; !rest.empty();) {
    if (rest.starts_with(kSpaceSymbol)) {
      text += ' ';
      rest.remove_prefix(kSpaceSymbol.size());
    } else {
      text += rest.front();
      rest.remove_prefix(1);
    }
  }
  return text;
}

}  // namespace

struct Tokenizer::State {
  /// What decode() needs of a piece.
  struct Text {
    std::string bytes;
    bool begins_with_space_symbol = false;
    bool is_byte = false;
  };

  std::filesystem::path file;
  std::string fingerprint;
  sentencepiece::SentencePieceProcessor processor;
  std::vector<Text> texts;
  CutRules rules;
  bool dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  int space_id = -1;

  const Text& text_of(int id) const {
    if (id < 0 || static_cast<std::size_t>(id) >= texts.size()) {
      input_error("{}: expected token ids from 0 to {}, found {}; the ids are of another tokenizer", file.string(),
                  texts.size() - 1, id);
    }
    return texts[static_cast<std::size_t>(id)];
  }

  void encode_chunk(std::string_view chunk, bool drop_prefix, std::vector<int>& ids) const {
    std::vector<int> part;
    const auto status = processor.Encode(chunk, &part);
    if (!status.ok())
      input_error("{}: SentencePiece cannot encode the text: {}", file.string(), status.error_message());
    if (drop_prefix) MEMLANE_EXPECTS(!part.empty() && part.front() == space_id);
    ids.insert(ids.end(), part.begin() + (drop_prefix ? 1 : 0), part.end());
  }
};

Tokenizer::Tokenizer(std::unique_ptr<const State> state) : state_(std::move(state)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::open(const std::filesystem::path& model_dir) {
  auto state = std::make_unique<State>();
  state->file = file_of_model(model_dir, "tokenizer.model");
  std::error_code ignored;
  if (!std::filesystem::exists(state->file, ignored)) {
    const bool has_json = std::filesystem::exists(model_dir / "tokenizer.json", ignored);
    input_error("{}: expected tokenizer.model (SentencePiece) in it, found {}", model_dir.string(),
                has_json ? "only tokenizer.json, which is not supported yet; add the model's tokenizer.model"
                         : "none; add the model's tokenizer.model");
  }
  const MappedFile mapped(state->file, "tokenizer");
  if (mapped.bytes().size() > kLargestFile) {
    input_error("{}: expected a tokenizer of at most {} bytes, found {}; download the file again", state->file.string(),
                kLargestFile, mapped.bytes().size());
  }
  const TokenizerModel model = parse_tokenizer_model(mapped.text(), state->file);
  const auto status = state->processor.LoadFromSerializedProto(mapped.text());
  if (!status.ok() || static_cast<std::size_t>(state->processor.GetPieceSize()) != model.pieces.size()) {
    input_error("{}: SentencePiece refuses it: {}; download the file again", state->file.string(),
                status.error_message());
  }
  state->fingerprint = Fingerprint().add(mapped.bytes()).hex();
  state->rules = cut_rules(model);
  state->dummy_prefix = model.dummy_prefix;
  state->remove_extra_whitespaces = model.remove_extra_whitespaces;
  for (const Piece& piece : model.pieces) {
    if (piece.text == kSpaceSymbol) state->space_id = static_cast<int>(state->texts.size());
    const bool visible = piece.kind != Piece::Kind::control && piece.kind != Piece::Kind::unknown;
    state->texts.push_back(
        {piece_text(piece), visible && piece.text.starts_with(kSpaceSymbol), piece.kind == Piece::Kind::byte});
  }
  return Tokenizer(std::move(state));
}

std::vector<int> Tokenizer::encode(std::string_view text, bool add_bos, std::size_t chunk_bytes) const {
  if (const std::optional<std::size_t> offset = first_invalid_utf8(text)) {
    input_error(
        "expected text in UTF-8, found a byte that is not at offset {}; convert the text, for example with iconv",
        *offset);
  }
  std::vector<int> ids;
  if (add_bos) {
    if (bos_id() < 0) input_error("{}: expected a beginning-of-text token, found none", state_->file.string());
    ids.push_back(bos_id());
  }
  const CutRules& rules = state_->rules;
  bool drop_prefix = false;
  while (!text.empty()) {
    const std::size_t from = std::max<std::size_t>(chunk_bytes, 1);
    const std::size_t cut = from >= text.size() ? text.size() : find_cut(rules, text, from);
    state_->encode_chunk(text.substr(0, cut), drop_prefix, ids);
    text.remove_prefix(cut);
    const bool at_space = text.starts_with(' ');
    drop_prefix = !at_space && rules.drop_prefix;
    if (at_space && rules.drop_space) text.remove_prefix(1);
  }
  return ids;
}

std::string Tokenizer::decode(std::span<const int> ids) const {
  TextStream stream(*this, /*at_start_of_text=*/true);
  std::string text;
  for (const int id : ids) text += stream.push(id);
  return text + stream.finish();
}

int Tokenizer::bos_id() const {
  return state_->processor.bos_id();
}
int Tokenizer::eos_id() const {
  return state_->processor.eos_id();
}
std::size_t Tokenizer::size() const {
  return state_->texts.size();
}
std::string Tokenizer::fingerprint() const {
  return state_->fingerprint;
}

TextStream::TextStream(const Tokenizer& tokenizer, bool at_start_of_text)
    : tokenizer_(tokenizer),
      drop_space_(at_start_of_text && (tokenizer.state_->dummy_prefix || tokenizer.state_->remove_extra_whitespaces)) {}

std::string TextStream::push(int id) {
  const Tokenizer::State::Text& piece = tokenizer_.state_->text_of(id);
  std::string_view bytes = piece.bytes;
  if (drop_space_ && piece.begins_with_space_symbol) {
    bytes.remove_prefix(1);
    // A tokenizer that removes extra spaces removes every space that leads.
    drop_space_ = tokenizer_.state_->remove_extra_whitespaces;
  }
  if (!bytes.empty()) drop_space_ = false;

  // Only bytes next to each other make a character, as in SentencePiece; anything between, even a control token, ends
  // it.
  std::string complete = piece.is_byte ? "" : finish();
  pending_ += bytes;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Utf8Prefix prefix = utf8_prefix(rest);
    if (prefix.kind == Utf8Prefix::Kind::cut) break;
    complete += prefix.kind == Utf8Prefix::Kind::invalid ? kReplacementCharacter : rest.substr(0, prefix.length);
    rest.remove_prefix(prefix.length);
  }
  pending_.erase(0, pending_.size() - rest.size());
  return complete;
}

std::string TextStream::finish() {
  std::string text;
  for (std::size_t i = 0; i < pending_.size(); ++i) text += kReplacementCharacter;
  pending_.clear();
  return text;
}

}  // namespace memlane
