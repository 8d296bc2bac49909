#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "memory/memory_file.h"
#include "runtime/tokenizer.h"

namespace memlane {

/// Neighbouring entries of a document that carried much of an answer.
struct SourceSpan {
  std::size_t document = 0;  ///< place among the documents that were asked
  std::size_t first = 0;     ///< entry of the document
  std::size_t count = 0;
  double weight = 0;  ///< of all its entries together
  double peak = 0;    ///< of the heaviest one
};

/// The heaviest spans, heaviest first. A span grows from the heaviest entry that is in none yet: to both sides, over
/// entries that weigh at least a tenth of it and up to 4 lighter ones between two such, to at most 64 entries; it ends
/// at its document's ends and where another span begins. Entries that weigh nothing begin none.
/// weights: of the entries of the documents one after the other; sizes: entries of each document, which may be fewer
/// than there are weights.
std::vector<SourceSpan> heaviest_spans(std::span<const double> weights, std::span<const std::size_t> sizes,
                                       std::size_t most);

/// The text of a stored document as its token ids say it, and where in it each entry stands.
class DocumentText {
 public:
  DocumentText(const StoredDocument& document, const Tokenizer& tokenizer);

  struct Range {
    std::size_t begin, end;  ///< bytes
  };
  /// The text that entries [first, first + count) stand for, widened to whole characters.
  Range range_of(std::size_t first, std::size_t count) const;
  std::string_view text(Range range) const {
    return std::string_view(text_).substr(range.begin, range.end - range.begin);
  }
  std::size_t entries() const { return begins_.size() - 1; }

  /// Whether this is the text that was read, byte for byte, so that ranges hold for it too. Decoding differs where the
  /// tokenizer drops spaces or the text has U+2581; of a document that is not complete it is not known.
  bool is_original() const { return is_original_; }

 private:
  std::string text_;
  std::vector<std::size_t> begins_;  // [entries + 1]: of entry i, or of the character that it goes on with
  bool is_original_ = false;
};

}  // namespace memlane
