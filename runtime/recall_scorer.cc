#include "runtime/recall_scorer.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/perplexity.h"
#include "runtime/sampler.h"

namespace memlane {

namespace {

/// Greedy text that grows token by token.
class GreedyText {
 public:
  GreedyText(CpuExec& exec, const Model& model, const Tokenizer& tokenizer)
      : exec_(exec), model_(model), tokenizer_(tokenizer), stream_(tokenizer, false) {}

  /// The most likely token. Ties: the smaller id.
  std::int32_t choose(std::span<const float> logits) { return sampler_.sample(exec_, logits); }
  /// False if the token ends the text.
  bool add(std::int32_t id) {
    const std::vector<int>& eos = model_.config.eos_token_ids;
    if (std::find(eos.begin(), eos.end(), id) != eos.end()) return false;
    if (static_cast<std::size_t>(id) < tokenizer_.size()) text_ += stream_.push(id);
    ++tokens_;
    return true;
  }
  /// All of the text, an incomplete character included. Nothing is added after it.
  const std::string& finished() {
    text_ += stream_.finish();
    return text_;
  }
  std::size_t tokens() const { return tokens_; }
  /// Whether the text so far may still turn out to begin with the answer, or to be it.
  bool may_become(std::string_view answer) const {
    const std::size_t start = text_.find_first_not_of(" \n");
    return start == std::string::npos || answer.starts_with(std::string_view(text_).substr(start));
  }

 private:
  CpuExec& exec_;
  const Model& model_;
  const Tokenizer& tokenizer_;
  TextStream stream_;
  Sampler sampler_{SamplerOptions{}};
  std::string text_;
  std::size_t tokens_ = 0;
};

/// Goes on greedily until the verdict is sure.
bool generates_answer(TextReader& reader, GreedyText& text, std::vector<float>& logits, std::string_view answer) {
  while (text.tokens() < kMostAnswerTokens && text.may_become(answer)) {
    const std::int32_t id = text.choose(logits);
    if (!text.add(id)) break;
    if (text.tokens() < kMostAnswerTokens && text.may_become(answer)) reader.feed(id, logits);
  }
  return answers(text.finished(), answer);
}

}  // namespace

RecallScore score_answer(TextReader& reader, std::span<const float> first_logits, const RecallTrial& trial,
                         const Model& model, const Tokenizer& tokenizer, const ReadAgain& again) {
  MEMLANE_EXPECTS(!trial.answer_ids.empty() && trial.answer_ids.size() <= kMostAnswerTokens);
  std::vector<float> logits(first_logits.begin(), first_logits.end());
  GreedyText text(reader.exec(), model, tokenizer);
  RecallScore score;
  bool greedy = true;       // so far the answer is what greedy generation gives
  bool may_differ = false;  // greedy generation went another way that may be the same text
  for (std::size_t i = 0; i < trial.answer_ids.size(); ++i) {
    const std::int32_t right = trial.answer_ids[i];
    if (greedy) {
      const std::int32_t chosen = text.choose(logits);
      greedy = chosen == right;
      const bool goes_on = text.add(chosen);
      if (!greedy) may_differ = goes_on && (text.may_become(trial.answer) || answers(text.finished(), trial.answer));
    }
    score.answer_logprob -= token_nll(logits, right);
    if (greedy || i + 1 < trial.answer_ids.size()) reader.feed(right, logits);
  }
  if (greedy) {
    score.correct = generates_answer(reader, text, logits, trial.answer);
  } else if (may_differ) {
    GreedyText whole(reader.exec(), model, tokenizer);
    score.correct = again([&](TextReader& other, std::vector<float>& other_logits) {
      return generates_answer(other, whole, other_logits, trial.answer);
    });
  }
  return score;
}

}  // namespace memlane
