#include "runtime/recall.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>

#include "kernels/error.h"

namespace memlane {

namespace {

constexpr std::string_view kTaskLine =
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz you "
    "about the "
    "important information there.";
constexpr std::string_view kRepeatedFiller =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";
constexpr std::size_t kNames = 100;
/// First names, so that a name is a word or two of tokens in any vocabulary.
constexpr std::array<std::string_view, kNames> kKeyNames = {
    "Adam",     "Agnes",    "Albert",  "Alice",    "Amelia",    "Andrew",  "Anna",      "Anthony",   "Arthur",
    "Audrey",   "Barbara",  "Basil",   "Beatrice", "Benjamin",  "Bernard", "Bertha",    "Blanche",   "Brian",
    "Bridget",  "Caroline", "Cecil",   "Charles",  "Charlotte", "Clara",   "Clement",   "Colin",     "Cora",
    "Daisy",    "Daniel",   "David",   "Dennis",   "Dora",      "Dorothy", "Douglas",   "Edgar",     "Edith",
    "Edward",   "Eleanor",  "Eliza",   "Emily",    "Eric",      "Ernest",  "Esther",    "Ethel",     "Eugene",
    "Eva",      "Felix",    "Fiona",   "Florence", "Frances",   "Frank",   "Frederick", "George",    "Gerald",
    "Gertrude", "Gilbert",  "Grace",   "Graham",   "Harold",    "Harriet", "Hazel",     "Helen",     "Henry",
    "Herbert",  "Howard",   "Hugh",    "Irene",    "Isaac",     "Ivan",    "Jack",      "James",     "Jane",
    "Jasper",   "Joan",     "John",    "Joseph",   "Josephine", "Judith",  "Julia",     "Katherine", "Kenneth",
    "Laura",    "Lawrence", "Leonard", "Louise",   "Lucy",      "Mabel",   "Martha",    "Martin",    "Matilda",
    "Maurice",  "Mildred",  "Nathan",  "Oliver",   "Patrick",   "Percy",   "Ralph",     "Rebecca",   "Simon",
    "Walter"};

using Random = std::mt19937_64;

std::size_t below(Random& random, std::size_t count) {
  return static_cast<std::size_t>(random() % count);
}

std::string five_digits(Random& random) {
  return std::to_string(10000 + below(random, 90000));
}

/// Statements and where in the filler they go, as shares of it.
struct Statement {
  std::string text;
  double depth;
};

double uniform(Random& random) {
  return static_cast<double>(random() >> 11) * 0x1p-53;
}

}  // namespace

RecallTrials::RecallTrials(const Tokenizer& tokenizer, std::string_view book)
    : tokenizer_(tokenizer),
      book_(tokenizer.encode(book, false)),
      repeated_(tokenizer.encode(kRepeatedFiller, false)) {}

RecallTrial RecallTrials::make(const RecallSetting& setting, std::uint64_t seed, std::size_t trial) const {
  Random random(seed * 1'000'003 + trial);
  RecallTrial result;
  result.answer = five_digits(random);
  std::vector<Statement> statements;
  std::string question;
  if (setting.task == RecallTask::passkey) {
    statements.push_back({"The pass key is " + result.answer + ". Remember it. " + result.answer + " is the pass key.",
                          uniform(random)});
    question = "What is the pass key? The pass key is";
  } else {
    const std::size_t asked = below(random, kNames);
    for (std::size_t i = 0; i < kNames; ++i) {
      const std::string value = i == asked ? result.answer : five_digits(random);
      statements.push_back({fmt::format("The pass key of {} is {}.", kKeyNames[i], value), uniform(random)});
    }
    question = fmt::format("What is the pass key of {0}? The pass key of {0} is", kKeyNames[asked]);
  }
  std::stable_sort(statements.begin(), statements.end(),
                   [](const Statement& a, const Statement& b) { return a.depth < b.depth; });

  result.document = tokenizer_.encode(kTaskLine, true);
  result.question = tokenizer_.encode(question, false);
  std::vector<std::vector<std::int32_t>> stated;
  std::size_t used = result.document.size() + result.question.size();
  for (const Statement& statement : statements) {
    stated.push_back(tokenizer_.encode(statement.text, false));
    used += stated.back().size();
  }
  if (used > setting.length) {
    input_error("length {}: the statements and the question alone take {} tokens; use a greater length", setting.length,
                used);
  }

  const bool from_book = setting.filler == RecallFiller::book;
  const std::vector<std::int32_t>& filler = from_book ? book_ : repeated_;
  if (filler.empty()) input_error("book filler: the book has no text; give one with --book");
  const std::size_t filler_tokens = setting.length - used;
  std::size_t at = from_book ? below(random, filler.size()) : 0;
  std::size_t written = 0;
  const auto fill_until = [&](std::size_t end) {
    for (; written < end; ++written, ++at) result.document.push_back(filler[at % filler.size()]);
  };
  for (std::size_t i = 0; i < statements.size(); ++i) {
    fill_until(static_cast<std::size_t>(statements[i].depth * static_cast<double>(filler_tokens)));
    result.document.insert(result.document.end(), stated[i].begin(), stated[i].end());
  }
  fill_until(filler_tokens);
  return result;
}

bool answers(std::string_view generated, std::string_view answer) {
  const std::size_t start = generated.find_first_not_of(" \n");
  if (start == std::string_view::npos) return false;
  generated.remove_prefix(start);
  if (!generated.starts_with(answer)) return false;
  return generated.size() == answer.size() || generated[answer.size()] < '0' || generated[answer.size()] > '9';
}

WilsonInterval wilson_interval(std::size_t correct, std::size_t trials) {
  constexpr double z = 1.959963984540054;
  if (trials == 0) return {0, 1};
  const auto n = static_cast<double>(trials);
  const double share = static_cast<double>(correct) / n;
  const double centre = (share + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z / (1 + z * z / n) * std::sqrt(share * (1 - share) / n + z * z / (4 * n * n));
  return {std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

}  // namespace memlane
