#include "runtime/recall.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <set>

#include "kernels/error.h"

namespace memlane {

namespace {

constexpr std::string_view kTaskLine =
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz you "
    "about the "
    "important information there.";
constexpr std::string_view kPairsLine =
    "What follows is a register, one entry a line. Later one of its entries has to be looked up.\n";
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

/// What a document of filler states and how it is asked.
struct Quiz {
  std::vector<Statement> statements;
  std::size_t asked = 0;  ///< which statement the question is about
  std::string question;
};

Quiz passkey(const std::string& answer, Random& random) {
  return {{{"The pass key is " + answer + ". Remember it. " + answer + " is the pass key.", uniform(random)}},
          0,
          "What is the pass key? The pass key is"};
}

Quiz multikey(const std::string& answer, Random& random) {
  Quiz quiz;
  quiz.asked = below(random, kNames);
  for (std::size_t i = 0; i < kNames; ++i) {
    const std::string value = i == quiz.asked ? answer : five_digits(random);
    quiz.statements.push_back({fmt::format("The pass key of {} is {}.", kKeyNames[i], value), uniform(random)});
  }
  quiz.question = fmt::format("What is the pass key of {0}? The pass key of {0} is", kKeyNames[quiz.asked]);
  return quiz;
}

/// A fact, {0} somebody's name and {1} a number, and a question about it that shares the name with it and little else.
struct Fact {
  std::string_view statement;
  std::string_view question;
};

constexpr std::array<Fact, 8> kFacts = {{
    {"When the old lighthouse was sold, {0} paid {1} crowns for it.",
     "How much did the tower by the sea cost its buyer, {0}? The price in crowns was"},
    {"At the last harvest {0} picked {1} apples in a single week.",
     "How large was the crop of fruit that {0} brought in? The crop was"},
    {"The library that {0} left to the town holds {1} volumes.",
     "How many books did {0} give away? The books were in all"},
    {"From the harbour to the mine {0} counted {1} steps on foot.",
     "How far did {0} walk to reach the pit? The walk took, in paces,"},
    {"In the great storm {0} lost {1} sheep.", "How big was the flock that bad weather took from {0}? It was"},
    {"The bridge of {0} was built from exactly {1} stones.",
     "How many blocks of rock did {0} need to span the water? The blocks used were"},
    {"Every winter {0} sells {1} candles to the abbey.",
     "How many lights do the monks buy from {0} in the cold season? Their order is"},
    {"The crew under captain {0} caught {1} herrings that night.",
     "How many fish did the boat of {0} bring home? The catch was"},
}};

Quiz needle(const std::string& answer, Random& random) {
  const Fact& fact = kFacts[below(random, kFacts.size())];
  const std::string_view name = kKeyNames[below(random, kNames)];
  return {{{fmt::format(fmt::runtime(fact.statement), name, answer), uniform(random)}},
          0,
          fmt::format(fmt::runtime(fact.question), name)};
}

[[noreturn]] void refuse_length(std::size_t length, std::size_t used) {
  input_error("length {}: the statements and the question alone take {} tokens; use a greater length", length, used);
}

}  // namespace

RecallTrials::RecallTrials(const Tokenizer& tokenizer, std::string_view book)
    : tokenizer_(tokenizer),
      book_(tokenizer.encode(book, false)),
      repeated_(tokenizer.encode(kRepeatedFiller, false)) {}

RecallTrial RecallTrials::make(const RecallSetting& setting, std::uint64_t seed, std::size_t trial) const {
  return make(setting, seed, trial, Filling::all);
}

std::size_t RecallTrials::question_tokens(const RecallSetting& setting, std::uint64_t seed, std::size_t trial) const {
  return make(setting, seed, trial, Filling::nothing).question.size();
}

RecallTrial RecallTrials::make(const RecallSetting& setting, std::uint64_t seed, std::size_t trial,
                               Filling filling) const {
  MEMLANE_EXPECTS(setting.depth.value_or(0) >= 0 && setting.depth.value_or(0) <= 1);
  Random random(seed * 1'000'003 + trial);
  RecallTrial result;
  result.answer = five_digits(random);
  result.answer_ids = tokenizer_.encode(result.answer, false);
  if (setting.task == RecallTask::keyvalue) {
    fill_with_pairs(result, setting, random, filling);
  } else {
    fill_with_text(result, setting, random, filling);
  }
  return result;
}

/// Lines from the last to the first, so that the document ends with a whole one; the first may be the end of one.
void RecallTrials::fill_with_pairs(RecallTrial& trial, const RecallSetting& setting, Random& random,
                                   Filling filling) const {
  constexpr std::size_t kLetters = 6;
  const auto random_key = [&] {
    std::string key;
    for (std::size_t i = 0; i < kLetters; ++i) key += static_cast<char>('a' + below(random, 26));
    return key;
  };
  const std::string asked = random_key();
  const double random_depth = uniform(random);
  const auto line = [&](const std::string& key, const std::string& value) {
    return tokenizer_.encode(key + ": " + value + "\n", false);
  };
  trial.document = tokenizer_.encode(kPairsLine, true);
  trial.question = tokenizer_.encode(fmt::format("Look up the entry {0}.\n{0}:", asked), false);
  const std::vector<std::int32_t> asked_line = line(asked, trial.answer);
  const std::size_t used = trial.document.size() + trial.question.size() + asked_line.size();
  if (used > setting.length) refuse_length(setting.length, used);
  if (filling == Filling::nothing) return;

  std::set<std::string> keys = {asked};
  std::vector<std::vector<std::int32_t>> lines;
  std::size_t room = setting.length - used;
  while (room > 0) {
    std::string key = random_key();
    while (!keys.insert(key).second) key = random_key();
    std::vector<std::int32_t> next = line(key, five_digits(random));
    if (next.size() > room) next.erase(next.begin(), next.end() - static_cast<std::ptrdiff_t>(room));
    room -= next.size();
    lines.push_back(std::move(next));
  }
  std::reverse(lines.begin(), lines.end());  // what was cut stands first
  const std::size_t others = lines.size() - std::min<std::size_t>(lines.size(), 1);
  const auto at =
      static_cast<std::size_t>(std::lround(setting.depth.value_or(random_depth) * static_cast<double>(others)));
  lines.insert(lines.begin() + static_cast<std::ptrdiff_t>(lines.size() - others + at), asked_line);
  for (const auto& each : lines) trial.document.insert(trial.document.end(), each.begin(), each.end());
}

void RecallTrials::fill_with_text(RecallTrial& trial, const RecallSetting& setting, Random& random,
                                  Filling filling) const {
  Quiz quiz = setting.task == RecallTask::passkey    ? passkey(trial.answer, random)
              : setting.task == RecallTask::multikey ? multikey(trial.answer, random)
                                                     : needle(trial.answer, random);
  if (setting.depth) quiz.statements[quiz.asked].depth = *setting.depth;
  std::stable_sort(quiz.statements.begin(), quiz.statements.end(),
                   [](const Statement& a, const Statement& b) { return a.depth < b.depth; });

  trial.document = tokenizer_.encode(kTaskLine, true);
  trial.question = tokenizer_.encode(quiz.question, false);
  std::vector<std::vector<std::int32_t>> stated;
  std::size_t used = trial.document.size() + trial.question.size();
  for (const Statement& statement : quiz.statements) {
    stated.push_back(tokenizer_.encode(statement.text, false));
    used += stated.back().size();
  }
  if (used > setting.length) refuse_length(setting.length, used);
  if (filling == Filling::nothing) return;

  const bool from_book = setting.filler == RecallFiller::book;
  const std::vector<std::int32_t>& filler = from_book ? book_ : repeated_;
  if (filler.empty()) input_error("book filler: the book has no text; give one with --book");
  const std::size_t filler_tokens = setting.length - used;
  std::size_t at = from_book ? below(random, filler.size()) : 0;
  std::size_t written = 0;
  const auto fill_until = [&](std::size_t end) {
    for (; written < end; ++written, ++at) trial.document.push_back(filler[at % filler.size()]);
  };
  for (std::size_t i = 0; i < quiz.statements.size(); ++i) {
    fill_until(static_cast<std::size_t>(quiz.statements[i].depth * static_cast<double>(filler_tokens)));
    trial.document.insert(trial.document.end(), stated[i].begin(), stated[i].end());
  }
  fill_until(filler_tokens);
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
