#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "runtime/recall.h"
#include "runtime/text_reader.h"
#include "runtime/tokenizer.h"

namespace memlane {

/// Tokens of generation that an answer is looked for in: five digits, as many tokens at most, and what ends the number.
constexpr std::size_t kMostAnswerTokens = 12;

/// What a model made of a trial.
struct RecallScore {
  bool correct = false;       ///< greedy generation begins with the answer
  double answer_logprob = 0;  ///< ln p of the answer's tokens after the question, summed (teacher forcing)
};

/// Reads document and question once more and hands over the reader and the last token's logits; returns what it is
/// told.
using ReadAgain = std::function<bool(const std::function<bool(TextReader&, std::vector<float>&)>&)>;

/// Asks a question whose document and question the reader has read; `logits` are those of the last token, [vocab].
///
/// The answer's tokens are fed one by one. As long as each is also the most likely token, that is greedy generation;
/// it then goes on until the answer's end shows, kMostTokens in all. If the model prefers another token, then it is
/// wrong, unless that token may be another way to write the same answer: then the greedy text of a second reading
/// decides. The verdict is that of generating from the start, at the cost of one reading.
/// Throws what the reader throws, and InputError if a logit is NaN.
RecallScore score_answer(TextReader& reader, std::span<const float> logits, const RecallTrial& trial,
                         const Model& model, const Tokenizer& tokenizer, const ReadAgain& again);

}  // namespace memlane
