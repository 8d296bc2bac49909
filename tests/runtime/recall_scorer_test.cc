#include "runtime/recall_scorer.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/perplexity.h"
#include "tests/golden_case.h"

namespace memlane::testing {
namespace {

/// A model that tells stories is asked to go on; what it says is what the answers are taken from.
class RecallScorer : public ::testing::Test {
 protected:
  RecallTrial trial(const std::string& document, const std::string& question, const std::string& answer) const {
    return {tokenizer_.encode(document, true), tokenizer_.encode(question, false), answer,
            tokenizer_.encode(answer, false)};
  }
  static std::vector<std::int32_t> prompt_of(const RecallTrial& trial) {
    std::vector<std::int32_t> prompt = trial.document;
    prompt.insert(prompt.end(), trial.question.begin(), trial.question.end());
    return prompt;
  }
  RecallScore score(const RecallTrial& trial, const std::string& method) {
    const std::vector<std::int32_t> prompt = prompt_of(trial);
    const MethodSettings settings = Method::parse(method).settings(model_.config, base_, prompt.size(), 12);
    std::vector<float> logits(model_.config.vocab_size);
    const auto read = [&](TextReader& reader) { reader.read(prompt, trial.question.size(), 12, logits); };
    TextReader reader({exec_, model_, lookup_}, settings);
    read(reader);
    return score_answer(reader, logits, trial, model_, tokenizer_, [&](const auto& use) {
      ++readings_again_;
      TextReader second({exec_, model_, lookup_}, settings);
      read(second);
      return use(second, logits);
    });
  }
  /// Twelve tokens, the most likely one each time, each from a call over everything so far.
  std::string slow_generation(const RecallTrial& trial) {
    std::vector<std::int32_t> ids = prompt_of(trial);
    const std::size_t begin = ids.size();
    MemorySettings plain = base_;
    plain.mem_layers.clear();
    plain.window = 400;
    while (ids.size() < begin + 12) {
      Session session(exec_, model_, plain, lookup_);
      const auto logits = call_for_logits(session, model_, ids, ids.size());
      const auto last = logits.end() - static_cast<std::ptrdiff_t>(model_.config.vocab_size);
      const auto next = static_cast<std::int32_t>(std::max_element(last, logits.end()) - last);
      if (next == tokenizer_.eos_id()) break;
      ids.push_back(next);
    }
    TextStream stream(tokenizer_, false);
    std::string text;
    for (const std::int32_t id : std::span(ids).subspan(begin)) text += stream.push(id);
    return text + stream.finish();
  }

  CpuExec exec_{1};
  Model model_ = load_model(exec_, stories260k_folder(), DType::f32);
  Tokenizer tokenizer_ = Tokenizer::open(stories260k_folder());
  Lookup lookup_;
  MemorySettings base_ = resolve_memory_settings(model_.config, {.mem_layers = std::vector<int>{2, 3}, .window = 64});
  std::size_t readings_again_ = 0;
};

const char* const kDocument = "Once upon a time there was a little girl named Lily. She had a big red ball.";

TEST_F(RecallScorer, SaysWhatGeneratingFromTheStartWouldSay) {
  std::size_t right = 0, wrong = 0;
  for (const char* question : {"Lily went to the park and saw", "Her mom said"}) {
    const std::string said = slow_generation(trial(kDocument, question, "x"));
    const std::string text = said.substr(said.find_first_not_of(' '));
    // Beginnings of what it says, ends of words or not, and what it does not say.
    for (std::size_t length : {1, 2, 3, 5, 7, 12}) {
      for (std::string answer : {text.substr(0, length), text.substr(0, length) + "q", "z" + text.substr(0, length)}) {
        while (answer.ends_with(' ')) answer.pop_back();
        if (tokenizer_.encode(answer, false).size() > 11) continue;
        const bool expected = answers(said, answer);
        EXPECT_EQ(score(trial(kDocument, question, answer), "none:window=400").correct, expected)
            << question << " -> '" << said << "', asked for '" << answer << "'";
        ++(expected ? right : wrong);
      }
    }
  }
  EXPECT_GT(right, 5U);
  EXPECT_GT(wrong, 10U);
  EXPECT_GT(readings_again_, 0U) << "some answers are written in other tokens than the tokenizer's";
}

TEST_F(RecallScorer, TheLogProbabilityIsThatOfTheAnswersTokensInOneCall) {
  for (const char* method : {"none:window=400", "memory"}) {
    const RecallTrial asked = trial(kDocument, "The secret number is", "48213");
    std::vector<std::int32_t> ids = prompt_of(asked);
    const std::size_t begin = ids.size();
    ids.insert(ids.end(), asked.answer_ids.begin(), asked.answer_ids.end());
    const MemorySettings settings = Method::parse(method).settings(model_.config, base_, begin).memory;
    Session session(exec_, model_, settings, lookup_);
    const auto logits =
        call_for_logits(session, model_, ids,
                        settings.mem_layers.empty() ? ids.size() : asked.question.size() + asked.answer_ids.size());
    double expected = 0;
    for (std::size_t i = begin; i < ids.size(); ++i) {
      expected -=
          token_nll(std::span(logits).subspan((i - 1) * model_.config.vocab_size, model_.config.vocab_size), ids[i]);
    }
    EXPECT_NEAR(score(asked, method).answer_logprob, expected, 1e-4) << method;
    EXPECT_LT(expected, 0);
  }
}

TEST_F(RecallScorer, AMethodThatRecomputesScoresAsItsScalingDoesUpToTheOriginalLength) {
  const RecallTrial asked = trial(kDocument, "The secret number is", "48213");
  const RecallScore plain = score(asked, "none:window=400");
  EXPECT_NEAR(score(asked, "dynamic-ntk:mode=recompute").answer_logprob, plain.answer_logprob, 1e-4);
  EXPECT_GT(
      std::abs(score(asked, "dynamic-ntk:original-length=20:mode=recompute").answer_logprob - plain.answer_logprob),
      1e-3);
}

}  // namespace
}  // namespace memlane::testing
