#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tokenizer.h"

namespace memlane {

/// A question whose answer stands somewhere in a long text.
struct RecallTrial {
  std::vector<std::int32_t> document;         ///< BOS, the task line, filler with the statements in it
  std::vector<std::int32_t> question;         ///< no BOS
  std::string answer;                         ///< five digits
  std::vector<std::int32_t> answer_ids = {};  ///< the answer as a continuation of the question
};

enum class RecallTask {
  passkey,   ///< one key, at a random depth: the prompt of Mohtashami and Jaggi 2023, as LongLLaMA's test words it
  multikey,  ///< a hundred named keys at random depths, one is asked for
  keyvalue,  ///< nothing but lines "key: value" with random keys, one is asked for: the key-value retrieval of Liu et
             ///< al. 2023 (Lost in the Middle) in plain lines instead of JSON
  needle     ///< one fact in running text, asked for in other words than it is stated in (after Kamradt 2023)
};

enum class RecallFiller {
  book,     ///< running text from a random place of a book, which starts again at its end
  repeated  ///< the five sentences of the pass key test, over and over
};

/// What a series of trials is about.
struct RecallSetting {
  RecallTask task = RecallTask::passkey;
  RecallFiller filler = RecallFiller::book;
  std::size_t length = 2048;  ///< tokens of document and question together
  /// Where what is asked for stands: 0 at the beginning of the document, 1 at its end; by default at random. The depth
  /// changes nothing else about a trial. Other statements stand at random.
  std::optional<double> depth = {};
};

/// Makes trials. The same seed and trial number give the same trial for every method.
class RecallTrials {
 public:
  /// book: the text of book filler; may be empty for repeated filler.
  RecallTrials(const Tokenizer& tokenizer, std::string_view book);

  /// Throws InputError if the statements and the question do not fit the length.
  RecallTrial make(const RecallSetting& setting, std::uint64_t seed, std::size_t trial) const;

  /// Tokens of that trial's question, without making its document. Throws as make() does.
  std::size_t question_tokens(const RecallSetting& setting, std::uint64_t seed, std::size_t trial) const;

 private:
  enum class Filling { all, nothing };
  RecallTrial make(const RecallSetting& setting, std::uint64_t seed, std::size_t trial, Filling filling) const;
  void fill_with_pairs(RecallTrial& trial, const RecallSetting& setting, std::mt19937_64& random,
                       Filling filling) const;
  void fill_with_text(RecallTrial& trial, const RecallSetting& setting, std::mt19937_64& random, Filling filling) const;

  const Tokenizer& tokenizer_;
  std::vector<std::int32_t> book_;
  std::vector<std::int32_t> repeated_;
};

/// Whether generated text starts with the answer: after spaces, its digits and then no further digit.
bool answers(std::string_view generated, std::string_view answer);

/// The 95 % Wilson score interval of a share (Wilson 1927).
struct WilsonInterval {
  double low, high;
};
WilsonInterval wilson_interval(std::size_t correct, std::size_t trials);

}  // namespace memlane
