#include "runtime/tokenizer_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <unordered_set>

#include "kernels/error.h"
#include "runtime/strict_json.h"
#include "runtime/utf8.h"

namespace memlane {

namespace {

// Four times the largest vocabularies: a small file must not become gigabytes of pieces, here and in SentencePiece.
constexpr std::size_t kMaxPieces = std::size_t{1} << 20;
constexpr std::size_t kMaxPieceBytes = 4096;

/// One field of a protocol buffer message.
struct Field {
  enum class Type { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };
  std::uint64_t number = 0;
  Type type = Type::varint;
  std::uint64_t value = 0;  // of a number
  std::string_view bytes;   // of a string or message
};

/// Takes the fields off a protocol buffer message one by one.
class FieldReader {
 public:
  FieldReader(std::string_view message, const std::filesystem::path& file) : rest_(message), file_(file) {}

  /// Nothing at the end of the message.
  std::optional<Field> next() {
    if (rest_.empty()) return std::nullopt;
    const std::uint64_t key = varint();
    Field field;
    field.number = key >> 3;
    field.type = static_cast<Field::Type>(key & 7);
    if (field.number == 0 || field.number >= (std::uint64_t{1} << 29)) damaged();
    switch (field.type) {
      case Field::Type::varint:
        field.value = varint();
        break;
      case Field::Type::fixed64:
        field.value = fixed(8);
        break;
      case Field::Type::fixed32:
        field.value = fixed(4);
        break;
      case Field::Type::bytes:
        field.bytes = take(varint());
        break;
      default:
        damaged();
    }
    return field;
  }

  [[noreturn]] void damaged() const {
    input_error("{}: expected a SentencePiece model, found other or damaged data; download the file again",
                file_.string());
  }

 private:
  std::string_view take(std::uint64_t count) {
    if (count > rest_.size()) damaged();
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      if (shift < 64) value |= static_cast<std::uint64_t>(byte & 0x7fU) << shift;
      if (byte < 0x80) return value;
    }
    damaged();
  }

  std::uint64_t fixed(std::size_t count) {
    std::uint64_t value = 0;
    std::memcpy(&value, take(count).data(), count);
    return value;
  }

  std::string_view rest_;
  const std::filesystem::path& file_;
};

/// Reads the messages of sentencepiece_model.proto, whose field numbers stand here.
class ModelReader {
 public:
  explicit ModelReader(const std::filesystem::path& file) : file_(file) {}

  TokenizerModel read(std::string_view message) {
    FieldReader fields(message, file_);
    while (const auto field = fields.next()) {
      if (field->number > 5) continue;
      if (field->type != Field::Type::bytes) fields.damaged();
      if (field->number == 1) read_piece(field->bytes);
      if (field->number == 2) read_trainer(field->bytes);
      if (field->number == 3) read_normalizer(field->bytes, &model_);
      if (field->number == 5) read_normalizer(field->bytes, nullptr);
    }
    check_pieces();
    return std::move(model_);
  }

 private:
  void read_piece(std::string_view message) {
    FieldReader fields(message, file_);
    Piece piece;
    float score = 0;
    while (const auto field = fields.next()) {
      if (field->number == 1 && field->type == Field::Type::bytes) {
        piece.text = field->bytes;
      } else if (field->number == 2 && field->type == Field::Type::fixed32) {
        score = std::bit_cast<float>(static_cast<std::uint32_t>(field->value));
      } else if (field->number == 3 && field->type == Field::Type::varint && field->value >= 1 && field->value <= 6) {
        piece.kind = static_cast<Piece::Kind>(field->value);
      } else if (field->number <= 3) {
        fields.damaged();
      }
    }
    if (!std::isfinite(score) || model_.pieces.size() == kMaxPieces) fields.damaged();
    model_.pieces.push_back(std::move(piece));
  }

  void read_trainer(std::string_view message) {
    FieldReader fields(message, file_);
    while (const auto field = fields.next()) {
      const bool known = field->number == 3 || field->number == 24 || field->number == 35;
      if (!known) continue;
      if (field->type != Field::Type::varint) fields.damaged();
      if (field->number == 3) model_type_ = field->value;
      if (field->number == 24) model_.whitespace_as_suffix = field->value != 0;
      if (field->number == 35) model_.byte_fallback = field->value != 0;
    }
  }

  /// `model` is null for the denormaliser, whose flags mean nothing.
  void read_normalizer(std::string_view message, TokenizerModel* model) {
    FieldReader fields(message, file_);
    std::string_view name;
    while (const auto field = fields.next()) {
      if (field->number > 5) continue;
      const bool flag = field->number >= 3;
      if (field->type != (flag ? Field::Type::varint : Field::Type::bytes)) fields.damaged();
      if (field->number == 1) name = field->bytes;
      if (field->number == 2 && !field->bytes.empty()) {
        input_error(
            "{}: its normaliser {} rewrites characters, which is not supported yet; expected \"identity\", as "
            "Llama's tokenizers have",
            file_.string(), shown(name));
      }
      if (model == nullptr) continue;
      if (field->number == 3) model->dummy_prefix = field->value != 0;
      if (field->number == 4) model->remove_extra_whitespaces = field->value != 0;
      if (field->number == 5) model->escape_whitespaces = field->value != 0;
    }
  }

  void check_pieces() {
    if (model_.pieces.empty()) FieldReader({}, file_).damaged();
    if (model_type_ != 1 && model_type_ != 2) {
      input_error("{}: expected a BPE or unigram model, found SentencePiece's model type {}, which is not supported",
                  file_.string(), model_type_);
    }
    model_.is_bpe = model_type_ == 2;
    std::unordered_set<std::string_view> seen;
    std::size_t unknown = 0;
    std::size_t bytes = 0;
    for (const Piece& piece : model_.pieces) {
      check_text(piece);
      if (!seen.insert(piece.text).second) refuse_piece(piece, "appears twice");
      unknown += piece.kind == Piece::Kind::unknown ? 1 : 0;
      bytes += piece.kind == Piece::Kind::byte ? 1 : 0;
    }
    const std::size_t expected_bytes = model_.byte_fallback ? 256 : 0;
    if (unknown != 1 || bytes != expected_bytes) {
      input_error("{}: expected 1 unknown piece and {} byte pieces, found {} and {}; download the file again",
                  file_.string(), expected_bytes, unknown, bytes);
    }
  }

  void check_text(const Piece& piece) const {
    if (piece.text.empty() || piece.text.size() > kMaxPieceBytes) refuse_piece(piece, "is empty or absurdly long");
    if (first_invalid_utf8(piece.text).has_value()) refuse_piece(piece, "is not UTF-8");
    if (piece.text.find('\0') != std::string::npos) refuse_piece(piece, "has a NUL in it");
    if (piece.kind != Piece::Kind::byte) return;
    const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); };
    const std::string& text = piece.text;
    const bool named =
        text.size() == 6 && text.starts_with("<0x") && is_digit(text[3]) && is_digit(text[4]) && text[5] == '>';
    if (!named) refuse_piece(piece, "is no byte such as <0x0A>");
  }

  [[noreturn]] void refuse_piece(const Piece& piece, std::string_view problem) const {
    input_error("{}: piece {} {}; download the file again", file_.string(), shown(piece.text), problem);
  }

  const std::filesystem::path& file_;
  std::uint64_t model_type_ = 1;
  TokenizerModel model_;
};

}  // namespace

char byte_of(const Piece& piece) {
  MEMLANE_EXPECTS(piece.kind == Piece::Kind::byte);
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'A' + 10; };
  return static_cast<char>(digit(piece.text[3]) * 16 + digit(piece.text[4]));
}

TokenizerModel parse_tokenizer_model(std::string_view bytes, const std::filesystem::path& file) {
  return ModelReader(file).read(bytes);
}

}  // namespace memlane
