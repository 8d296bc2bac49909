// Reading and scoring as the evaluation does, against plain calls of sessions: to the last bit where nothing may
// differ.

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "runtime/perplexity.h"
#include "runtime/text_scoring.h"
#include "tests/golden_case.h"
#include "tests/reference/random_values.h"

namespace memlane::testing {
namespace {

using Ids = std::vector<std::int32_t>;
using Rows = std::map<std::size_t, std::vector<float>>;

class TextReading : public ::testing::Test {
 protected:
  ReadingContext context() { return {exec_, model_, lookup_}; }
  MethodSettings method(const std::string& text, std::size_t length, std::size_t room = 0) const {
    return Method::parse(text).settings(model_.config, base_, length, room);
  }
  /// The logits of the last `rows` tokens of one call.
  std::vector<float> last_of_call(const MemorySettings& settings, std::span<const std::int32_t> ids, std::size_t local,
                                  std::size_t rows) {
    Session session(exec_, model_, settings, lookup_);
    std::vector<float> logits(rows * vocab());
    session.call(ids, local, {logits.data(), {rows, vocab()}});
    return logits;
  }
  std::size_t vocab() const { return model_.config.vocab_size; }
  LogitSink into(Rows& rows) {
    return [&rows](std::size_t first, View<const float, 2> logits) {
      for (std::size_t i = 0; i < logits.extent(0); ++i) {
        const auto row = logits[i].flat();
        EXPECT_TRUE(rows.emplace(first + i, std::vector<float>(row.begin(), row.end())).second);
      }
    };
  }

  CpuExec exec_{1};
  Model model_ = load_model(exec_, stories260k_folder(), DType::f32);
  Lookup lookup_;
  MemorySettings base_ = resolve_memory_settings(
      model_.config, {.mem_layers = std::vector<int>{2, 3}, .window = 48, .last_context_length = 20});
  Ids ids_ = reference::Random(5).ids(200, 512);
};

TEST_F(TextReading, APromptWithMemoryIsOneCall) {
  const MethodSettings settings = method("memory", ids_.size());
  std::vector<float> found(vocab());
  TextReader reader(context(), settings);
  reader.read(ids_, 15, 12, found);
  EXPECT_EQ(found, last_of_call(settings.memory, ids_, 15, 1));
  EXPECT_EQ(reader.session()->memory_length(), 185U);
  EXPECT_EQ(reader.session()->local_length(), 15U);
}

TEST_F(TextReading, TheLastContextStaysLocalWithTheQuestion) {
  TextReader reader(context(), method("memory:last-context=10", ids_.size()));
  std::vector<float> logits(vocab());
  reader.read(ids_, 15, 12, logits);
  EXPECT_EQ(reader.session()->local_length(), 25U);
  EXPECT_EQ(reader.session()->memory_length(), 175U);
}

TEST_F(TextReading, WithoutMemoryTheEndThatFitsIsRead) {
  const MethodSettings settings = method("none", ids_.size());
  std::vector<float> found(vocab());
  TextReader reader(context(), settings);
  reader.read(ids_, 15, 12, found);
  EXPECT_EQ(reader.tokens_read(), 36U);
  EXPECT_EQ(found, last_of_call(settings.memory, std::span(ids_).last(36), 36, 1));
}

TEST_F(TextReading, AQuestionThatDoesNotFitIsRefused) {
  TextReader reader(context(), method("memory", ids_.size()));
  std::vector<float> logits(vocab());
  EXPECT_THROW(reader.read(ids_, 40, 12, logits), InputError);
}

TEST_F(TextReading, ALongFullWindowInPiecesIsOneCall) {
  const Ids ids = reference::Random(6).ids(2500, 512);
  for (const std::string name : {"none:window=full", "yarn", "linear:factor=3"}) {
    const MethodSettings settings = method(name, ids.size(), 3);
    std::vector<float> found(vocab());
    TextReader reader(context(), settings);
    reader.read(ids, 15, 3, found);
    EXPECT_EQ(found, last_of_call(settings.memory, ids, ids.size(), 1)) << name;
    reader.feed(7, found);
    Ids longer = ids;
    longer.push_back(7);
    EXPECT_EQ(found, last_of_call(settings.memory, longer, longer.size(), 1)) << name;
  }
}

TEST_F(TextReading, OnePassIsOneCallWhereTheWindowHoldsTheText) {
  const Ids ids = reference::Random(6).ids(2100, 512);
  const MethodSettings settings = method("yarn", ids.size());
  Rows rows;
  read_in_one_pass(context(), settings, ids, into(rows));
  const std::vector<float> expected = last_of_call(settings.memory, ids, ids.size(), ids.size());
  ASSERT_EQ(rows.size(), ids.size());
  for (const std::size_t place : {0, 1, 2047, 2048, 2099}) {
    EXPECT_EQ(rows[place], std::vector<float>(expected.begin() + static_cast<std::ptrdiff_t>(place * vocab()),
                                              expected.begin() + static_cast<std::ptrdiff_t>((place + 1) * vocab())));
  }
}

TEST_F(TextReading, OnePassWithMemoryMovesEveryFullWindow) {
  const MethodSettings settings = method("memory", ids_.size());
  Rows rows;
  read_in_one_pass(context(), settings, ids_, into(rows));
  // A call whose last context is the last window cuts 200 tokens in the same places: 4 * 48 + 8.
  const std::vector<float> expected = last_of_call(settings.memory, ids_, 8, ids_.size());
  for (std::size_t place = 0; place < ids_.size(); ++place) {
    EXPECT_EQ(rows[place], std::vector<float>(expected.begin() + static_cast<std::ptrdiff_t>(place * vocab()),
                                              expected.begin() + static_cast<std::ptrdiff_t>((place + 1) * vocab())))
        << place;
  }
}

TEST_F(TextReading, TokenByTokenIsOnePassForAStaticMethod) {
  for (const std::string name : {"memory", "none", "yarn:factor=2", "memory+linear:factor=2:window=60"}) {
    const MethodSettings settings = method(name, ids_.size());
    Rows at_once, singly;
    read_in_one_pass(context(), settings, ids_, into(at_once));
    read_token_by_token(context(), settings, ids_, into(singly));
    EXPECT_EQ(at_once, singly) << name;
  }
}

TEST_F(TextReading, RecomputedIsOnePassForAStaticMethodAtItsPlaces) {
  const MethodSettings settings = method("ntk-aware", ids_.size());
  Rows all, some;
  read_in_one_pass(context(), settings, ids_, into(all));
  read_recomputed(context(), settings, ids_, 7, into(some));
  const std::vector<std::size_t> places = recomputed_places(ids_.size(), 7);
  ASSERT_EQ(some.size(), places.size());
  EXPECT_EQ(places.front(), 6U);
  EXPECT_LT(places.back() + 1, ids_.size()) << "it has a target";
  for (const std::size_t place : places) EXPECT_EQ(some[place], all[place]);
}

TEST_F(TextReading, RecomputedReadsEachPlaceUnderItsOwnLength) {
  const MethodSettings settings = method("dynamic-ntk:original-length=32:mode=recompute", ids_.size());
  Rows rows;
  read_recomputed(context(), settings, ids_, 50, into(rows));
  for (const auto& [place, row] : rows) {
    MemorySettings own = settings.memory;
    own.window = place + 1;
    own.memory_window = place + 1;
    EXPECT_EQ(row, last_of_call(own, std::span(ids_).first(place + 1), place + 1, 1));
  }
  const auto whole = last_of_call(settings.memory, ids_, ids_.size(), ids_.size());
  EXPECT_GT(max_difference(rows[99], std::span(whole).subspan(99 * vocab(), vocab())), 1e-3);
}

TEST_F(TextReading, TokenByTokenADynamicScalingHasTheLengthOfEachStep) {
  Rows consistent, inconsistent, recomputed, whole;
  const std::string scaling = "dynamic-ntk:original-length=32:mode=";
  read_token_by_token(context(), method(scaling + "consistent", ids_.size()), ids_, into(consistent));
  read_token_by_token(context(), method(scaling + "inconsistent", ids_.size()), ids_, into(inconsistent));
  read_recomputed(context(), method(scaling + "recompute", ids_.size()), ids_, 1, into(recomputed));
  read_token_by_token(context(), method(scaling + "whole-sequence", ids_.size()), ids_, into(whole));
  EXPECT_LE(max_difference(consistent[31], recomputed[31]), 1e-5) << "up to the original length nothing is scaled";
  EXPECT_LE(max_difference(inconsistent[31], recomputed[31]), 1e-5);
  EXPECT_GT(max_difference(consistent[150], recomputed[150]), 1e-4) << "layers above the first saw older bases";
  EXPECT_GT(max_difference(inconsistent[150], consistent[150]), 1e-4);
  Rows one_pass;
  read_in_one_pass(context(), method(scaling + "whole-sequence", ids_.size()), ids_, into(one_pass));
  EXPECT_EQ(whole, one_pass);
}

TEST_F(TextReading, WindowsThatKeepSomethingDoNotDependOnPieces) {
  for (const std::string name : {"memory:overlap=10", "memory:window=100:memory-window=30", "sliding:sliding=40",
                                 "memory+sliding:window=60:sliding=20", "capped:distance=25"}) {
    Rows at_once, singly;
    read_in_one_pass(context(), method(name, ids_.size()), ids_, into(at_once));
    read_token_by_token(context(), method(name, ids_.size()), ids_, into(singly));
    EXPECT_EQ(at_once, singly) << name;
  }
}

TEST_F(TextReading, TheEndOfAWindowIsTheEndOfACall) {
  for (const std::string name : {"yarn", "none", "memory"}) {
    const MethodSettings settings = method(name, ids_.size());
    Rows rows;
    read_for_end(context(), settings, ids_, 16, into(rows));
    ASSERT_EQ(rows.size(), 16U);
    const auto seen = name == std::string("none") ? std::span(ids_).last(48) : std::span(ids_);
    const std::vector<float> expected =
        last_of_call(settings.memory, seen, name == std::string("memory") ? 20 : seen.size(), 16);
    EXPECT_EQ(rows[184], std::vector<float>(expected.begin(), expected.begin() + static_cast<std::ptrdiff_t>(vocab())));
    EXPECT_EQ(rows[199], std::vector<float>(expected.end() - static_cast<std::ptrdiff_t>(vocab()), expected.end()));
  }
}

TEST_F(TextReading, AStoppedReadingSaysSo) {
  std::atomic<bool> stop{true};
  ReadingContext stopped = context();
  stopped.stop = &stop;
  Rows rows;
  EXPECT_THROW(read_in_one_pass(stopped, method("yarn", 200), ids_, into(rows)), Interrupted);
  EXPECT_THROW(read_recomputed(stopped, method("yarn", 200), ids_, 16, into(rows)), Interrupted);
}

TEST(TargetScores, AreThoseOfTheTokensThatFollow) {
  CpuExec exec(1);
  const Ids ids = {3, 1, 2, 0};
  const std::vector<float> logits = {0, 1, 2, 3, 4, 3, 2, 1, 0, 0, 0, 0, 9, 9, 9, 9};
  TargetScores scores;
  scores.add(exec, ids, 0, {logits.data(), {4, 4}});
  ASSERT_EQ(scores.size(), 3U) << "the last token predicts none";
  const auto nll = [&](std::size_t row, std::size_t id) {
    double sum = 0;
    for (std::size_t i = 0; i < 4; ++i) sum += std::exp(static_cast<double>(logits[row * 4 + i]));
    return std::log(sum) - static_cast<double>(logits[row * 4 + id]);
  };
  EXPECT_NEAR(scores.sum(), nll(0, 1) + nll(1, 2) + nll(2, 0), 1e-12);
  EXPECT_NEAR(scores.perplexity(), std::exp(scores.sum() / 3), 1e-12);
  const std::vector<std::size_t> places = {0, 2};
  EXPECT_NEAR(scores.mean_at(places), (nll(0, 1) + nll(2, 0)) / 2, 1e-12);
}

TEST(TargetScores, CurveIsTheMeanOfEqualRanges) {
  TargetScores scores;
  for (std::size_t place = 10; place < 20; ++place) scores.add(place, static_cast<double>(place));
  const auto curve = scores.curve(2);
  ASSERT_EQ(curve.size(), 2U);
  EXPECT_EQ(curve[0].position, 12U);
  EXPECT_NEAR(curve[0].nll, 12, 1e-12);
  EXPECT_NEAR(curve[1].nll, 17, 1e-12);
  EXPECT_EQ(scores.curve(1000).size(), 10U) << "empty ranges are left out";
}

TEST(MeanDivergence, AgreesWithItsDefinition) {
  const std::vector<float> p = {0, 1, 2, 5, 5, 5}, q = {1, 0, 0, 5, 5, 5};
  double expected = 0, p_sum = 0, q_sum = 0;
  for (int i = 0; i < 3; ++i)
    p_sum += std::exp(p[static_cast<std::size_t>(i)]), q_sum += std::exp(q[static_cast<std::size_t>(i)]);
  for (std::size_t i = 0; i < 3; ++i) {
    const double a = std::exp(static_cast<double>(p[i])) / p_sum, b = std::exp(static_cast<double>(q[i])) / q_sum;
    expected += a * std::log(a / b);
  }
  EXPECT_NEAR(mean_divergence({p.data(), {2, 3}}, {q.data(), {2, 3}}), expected / 2, 1e-6);
  EXPECT_EQ(mean_divergence({p.data(), {2, 3}}, {p.data(), {2, 3}}), 0);
}

}  // namespace
}  // namespace memlane::testing
