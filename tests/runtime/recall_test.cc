#include "runtime/recall.h"

#include <gtest/gtest.h>

#include <set>

#include "kernels/error.h"
#include "tests/golden_case.h"

namespace memlane::testing {
namespace {

class Recall : public ::testing::Test {
 protected:
  std::string text_of(const RecallTrial& trial) const {
    return tokenizer_.decode(trial.document) + " " + tokenizer_.decode(trial.question);
  }

  Tokenizer tokenizer_ = Tokenizer::open(golden_folder("longllama-tokenizer"));
  RecallTrials trials_{tokenizer_,
                       "It was a dark night. The rain fell in torrents, and the wind rattled along the roofs."};
};

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST_F(Recall, ATrialHasExactlyTheTokensAskedFor) {
  for (const auto filler : {RecallFiller::book, RecallFiller::repeated}) {
    for (const std::size_t length : {std::size_t{200}, std::size_t{2048}, std::size_t{5000}}) {
      const RecallTrial trial = trials_.make({RecallTask::passkey, filler, length}, 1, 0);
      EXPECT_EQ(trial.document.size() + trial.question.size(), length);
      EXPECT_EQ(trial.document.front(), tokenizer_.bos_id());
    }
  }
}

TEST_F(Recall, ThePassKeyIsStatedTwiceAndAskedForInTheStandardWords) {
  const RecallTrial trial = trials_.make({RecallTask::passkey, RecallFiller::repeated, 1000}, 3, 7);
  const std::string text = text_of(trial);
  EXPECT_EQ(count(text, "The pass key is " + trial.answer + ". Remember it. " + trial.answer + " is the pass key."),
            1U);
  EXPECT_TRUE(text.ends_with("What is the pass key? The pass key is"));
  EXPECT_EQ(trial.answer.size(), 5U);
}

TEST_F(Recall, MultikeyStatesAHundredNamesAndAsksForOne) {
  const RecallTrial trial = trials_.make({RecallTask::multikey, RecallFiller::book, 4096}, 1, 1);
  const std::string text = text_of(trial);
  EXPECT_EQ(count(text, "The pass key of "), 101U);
  const std::string question = tokenizer_.decode(trial.question);
  const std::string stem = question.substr(question.find("? ") + 2);
  EXPECT_EQ(count(text, stem + " " + trial.answer + "."), 1U);
}

TEST_F(Recall, SameSeedSameTrialAndOtherwiseAnother) {
  const RecallSetting setting{RecallTask::passkey, RecallFiller::book, 600};
  EXPECT_EQ(trials_.make(setting, 1, 4).document, trials_.make(setting, 1, 4).document);
  EXPECT_NE(trials_.make(setting, 1, 4).document, trials_.make(setting, 1, 5).document);
  EXPECT_NE(trials_.make(setting, 1, 4).document, trials_.make(setting, 2, 4).document);
}

TEST_F(Recall, KeysStandAtEveryDepth) {
  std::size_t first_half = 0;
  for (std::size_t trial = 0; trial < 100; ++trial) {
    const std::string text = text_of(trials_.make({RecallTask::passkey, RecallFiller::repeated, 1000}, 1, trial));
    if (text.find("Remember it") < text.size() / 2) ++first_half;
  }
  EXPECT_GT(first_half, 30U);
  EXPECT_LT(first_half, 70U);
}

TEST_F(Recall, ADepthMovesWhatIsAskedForAndNothingElse) {
  for (const RecallTask task : {RecallTask::passkey, RecallTask::multikey, RecallTask::needle, RecallTask::keyvalue}) {
    std::size_t last_at = 0;
    std::string question;
    for (const double depth : {0.0, 0.3, 1.0}) {
      const RecallTrial trial = trials_.make({task, RecallFiller::repeated, 4000, depth}, 1, 2);
      EXPECT_EQ(trial.document.size() + trial.question.size(), 4000U);
      const std::string text = tokenizer_.decode(trial.document);
      const std::size_t at = text.find(trial.answer);
      ASSERT_NE(at, std::string::npos);
      EXPECT_NEAR(static_cast<double>(at) / static_cast<double>(text.size()), depth, 0.07);
      EXPECT_GE(at, last_at);
      last_at = at;
      if (question.empty()) question = tokenizer_.decode(trial.question);
      EXPECT_EQ(tokenizer_.decode(trial.question), question);
    }
  }
}

TEST_F(Recall, KeyValueIsLinesOfRandomPairsOfWhichOneIsAsked) {
  for (const std::size_t length : {std::size_t{120}, std::size_t{1000}, std::size_t{1001}, std::size_t{1002}}) {
    const RecallTrial trial = trials_.make({RecallTask::keyvalue, RecallFiller::book, length}, 1, 3);
    EXPECT_EQ(trial.document.size() + trial.question.size(), length);
    const std::string question = tokenizer_.decode(trial.question);
    const std::string key = question.substr(question.size() - 7, 6);
    EXPECT_TRUE(question.ends_with(key + ":"));
    const std::string text = tokenizer_.decode(trial.document);
    EXPECT_EQ(count(text, key + ": " + trial.answer + "\n"), 1U);
    EXPECT_GT(count(text, ": "), length / 40);
    EXPECT_TRUE(text.ends_with("\n"));
  }
}

TEST_F(Recall, ANeedleIsStatedOnceAndAskedForInOtherWords) {
  std::set<std::string> questions;
  for (std::size_t i = 0; i < 40; ++i) {
    const RecallTrial trial = trials_.make({RecallTask::needle, RecallFiller::repeated, 1000}, 1, i);
    const std::string text = tokenizer_.decode(trial.document);
    EXPECT_EQ(count(text, trial.answer), 1U);
    const std::string question = tokenizer_.decode(trial.question);
    EXPECT_EQ(question.find('{'), std::string::npos);
    EXPECT_EQ(text.find(question.substr(question.size() - 12)), std::string::npos)
        << "the question's end is not stated";
    questions.insert(question);
  }
  EXPECT_GT(questions.size(), 20U);
}

TEST_F(Recall, AnswerIdsContinueTheQuestion) {
  const RecallTrial trial = trials_.make({RecallTask::passkey, RecallFiller::repeated, 600}, 1, 0);
  EXPECT_EQ(tokenizer_.decode(trial.answer_ids), trial.answer);
  std::vector<std::int32_t> ids = trial.question;
  ids.insert(ids.end(), trial.answer_ids.begin(), trial.answer_ids.end());
  EXPECT_EQ(ids, tokenizer_.encode(tokenizer_.decode(trial.question) + " " + trial.answer, false));
}

TEST_F(Recall, RefusesALengthThatTheStatementsDoNotFit) {
  EXPECT_THROW(trials_.make({RecallTask::multikey, RecallFiller::book, 500}, 1, 0), InputError);
  EXPECT_THROW(trials_.make({RecallTask::keyvalue, RecallFiller::book, 40}, 1, 0), InputError);
}

TEST(RecallAnswer, IsTheNumberAndNothingButTheNumber) {
  EXPECT_TRUE(answers(" 12345. Remember", "12345"));
  EXPECT_TRUE(answers("12345", "12345"));
  EXPECT_FALSE(answers(" 123456", "12345"));
  EXPECT_FALSE(answers(" 1234", "12345"));
  EXPECT_FALSE(answers(" the 12345", "12345"));
  EXPECT_FALSE(answers("", "12345"));
}

TEST(WilsonInterval, AgreesWithPublishedValues) {
  const WilsonInterval ten_of_ten = wilson_interval(10, 10);
  EXPECT_NEAR(ten_of_ten.low, 0.7225, 1e-4);
  EXPECT_NEAR(ten_of_ten.high, 1.0, 1e-12);
  const WilsonInterval half = wilson_interval(50, 100);
  EXPECT_NEAR(half.low, 0.4038, 1e-4);
  EXPECT_NEAR(half.high, 0.5962, 1e-4);
}

}  // namespace
}  // namespace memlane::testing
