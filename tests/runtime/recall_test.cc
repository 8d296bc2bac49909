#include "runtime/recall.h"

#include <gtest/gtest.h>

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

TEST_F(Recall, RefusesALengthThatTheStatementsDoNotFit) {
  EXPECT_THROW(trials_.make({RecallTask::multikey, RecallFiller::book, 500}, 1, 0), InputError);
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
