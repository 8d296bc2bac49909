// Where an answer came from: spans of heavy entries, and their place in the text.

#include "runtime/sources.h"

#include <gtest/gtest.h>

#include <numeric>

#include "memory/hash.h"
#include "runtime/session.h"
#include "tests/golden_case.h"
#include "tests/reference/random_values.h"
#include "tests/runtime/test_files.h"

namespace memlane {
namespace {

using Sizes = std::vector<std::size_t>;

std::vector<double> with_peaks(std::size_t count, const std::vector<std::pair<std::size_t, double>>& peaks) {
  std::vector<double> weights(count, 1e-6);
  for (const auto& [place, weight] : peaks) weights[place] = weight;
  return weights;
}

TEST(HeaviestSpans, JoinNeighboursOverSmallGaps) {
  const auto weights = with_peaks(100, {{20, 0.1}, {21, 0.5}, {26, 0.06}, {40, 0.2}, {45, 0.01}});
  const auto spans = heaviest_spans(weights, Sizes{100}, 2);
  ASSERT_EQ(spans.size(), 2U);
  EXPECT_EQ(spans[0].first, 20U);
  EXPECT_EQ(spans[0].count, 7U) << "over a gap of four";
  EXPECT_NEAR(spans[0].weight, 0.66, 1e-5);
  EXPECT_EQ(spans[0].peak, 0.5);
  EXPECT_EQ(spans[1].first, 40U);
  EXPECT_EQ(spans[1].count, 1U) << "what is a twentieth of the peak is no part of it";
}

TEST(HeaviestSpans, AreOrderedByAllTheirWeightAndNeverOverlap) {
  const auto weights = with_peaks(60, {{10, 0.3}, {30, 0.25}, {31, 0.25}, {36, 0.02}, {38, 0.02}});
  const auto spans = heaviest_spans(weights, Sizes{60}, 4);
  ASSERT_EQ(spans.size(), 4U);
  EXPECT_EQ(spans[0].first, 30U) << "two of 0.25 are more than one of 0.3";
  EXPECT_EQ(spans[1].first, 10U);
  EXPECT_EQ(spans[2].first, 36U);
  EXPECT_EQ(spans[2].count, 3U);
  std::vector<int> taken(60, 0);
  for (const SourceSpan& span : spans) {
    for (std::size_t i = span.first; i < span.first + span.count; ++i) EXPECT_EQ(taken[i]++, 0);
  }
}

TEST(HeaviestSpans, StayWithinTheirDocumentAndIgnoreWhatIsBehindTheLast) {
  auto weights = with_peaks(50, {{19, 0.4}, {20, 0.4}, {45, 0.9}});
  const auto spans = heaviest_spans(weights, Sizes{20, 0, 20}, 2);
  ASSERT_EQ(spans.size(), 2U);
  EXPECT_EQ(spans[0].document, 0U);
  EXPECT_EQ(spans[0].first + spans[0].count, 20U);
  EXPECT_EQ(spans[1].document, 2U);
  EXPECT_EQ(spans[1].first, 0U);
}

TEST(HeaviestSpans, AreNeverLongerThanTheyMayBe) {
  const std::vector<double> even(1000, 0.001);
  const auto spans = heaviest_spans(even, Sizes{1000}, 3);
  ASSERT_EQ(spans.size(), 3U);
  for (const SourceSpan& span : spans) EXPECT_EQ(span.count, 64U);
}

TEST(HeaviestSpans, OfNothingAreNone) {
  EXPECT_TRUE(heaviest_spans({}, Sizes{}, 3).empty());
  EXPECT_TRUE(heaviest_spans(std::vector<double>(9, 0.0), Sizes{9}, 3).empty());
}

class DocumentTextTest : public ::testing::Test {
 protected:
  /// A complete document of a text, in windows of 7 tokens.
  StoredDocument document_of(const std::string& text) {
    ids_ = tokenizer_.encode(text, true);
    StoredDocument document;
    document.info = {0, "text", Fingerprint().add(text).hex(), text.size(), ids_.size()};
    document.complete = true;
    for (std::size_t begin = 0; begin < ids_.size(); begin += 7) {
      const auto window =
          std::span<const std::int32_t>(ids_).subspan(begin, std::min<std::size_t>(7, ids_.size() - begin));
      document.windows.push_back({static_cast<std::uint32_t>(document.windows.size()), window, nullptr, window.size()});
    }
    return document;
  }

  Tokenizer tokenizer_ = Tokenizer::open(testing::stories260k_folder());
  std::vector<std::int32_t> ids_;
};

TEST_F(DocumentTextTest, SaysWhereEveryEntryStands) {
  const std::string text = "Once upon a time,\n there was a caf\xc3\xa9 \xe2\x82\xac 5 \xf0\x9f\x90\x95 dog.\n";
  const DocumentText found(document_of(text), tokenizer_);
  ASSERT_EQ(found.entries(), ids_.size());
  EXPECT_TRUE(found.is_original());
  EXPECT_EQ(found.text(found.range_of(0, ids_.size())), text);
  std::size_t covered = 0;
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    const auto range = found.range_of(i, 1);
    EXPECT_LE(range.begin, covered) << "nothing is left out";
    covered = range.end;
    EXPECT_TRUE(range.begin == text.size() || (static_cast<unsigned char>(text[range.begin]) & 0xc0) != 0x80);
    EXPECT_TRUE(range.end == text.size() || (static_cast<unsigned char>(text[range.end]) & 0xc0) != 0x80)
        << "whole characters";
  }
  EXPECT_EQ(covered, text.size());
}

TEST_F(DocumentTextTest, KnowsWhetherItIsTheOriginal) {
  StoredDocument document = document_of("The dog saw a tree.");
  document.complete = false;
  EXPECT_FALSE(DocumentText(document, tokenizer_).is_original()) << "half a document";
  document.complete = true;
  EXPECT_TRUE(DocumentText(document, tokenizer_).is_original());
  document.info.text_fingerprint = "00";
  EXPECT_FALSE(DocumentText(document, tokenizer_).is_original()) << "another text of this length";
  EXPECT_FALSE(DocumentText(document_of("two  spaces become one"), tokenizer_).is_original());
  EXPECT_FALSE(DocumentText(document_of("U+2581 \xe2\x96\x81 becomes a space"), tokenizer_).is_original());
}

class RecordTest : public ::testing::TestWithParam<const char*> {};

TEST_P(RecordTest, ChangesNoBitAndAddsUpWithTheLocalContextToOne) {
  CpuExec exec(2);
  const Model model = load_model(exec, testing::stories260k_folder(), DType::f32);
  const MemorySettings settings = resolve_memory_settings(
      model.config, {.mem_layers = std::vector<int>{2, 3}, .window = 48, .last_context_length = 20});
  Lookup lookup = Lookup::named(GetParam());
  lookup.top_k = 10;
  reference::Random random(5);
  const auto document = random.ids(130, model.config.vocab_size), question = random.ids(30, model.config.vocab_size);
  Session reader(exec, model, settings, lookup);
  for (std::size_t begin = 0; begin < 130; begin += 48) {
    reader.read_window(std::span(document).subspan(begin, std::min<std::size_t>(48, 130 - begin)));
  }
  const std::vector<const DocumentMemory*> seen = {&reader.own_memory()};
  Session plain(exec, model, settings, lookup, seen), recorded(exec, model, settings, lookup, seen);
  MemoryWeights weights;
  recorded.set_record(&weights);
  const auto call = [&](Session& session, std::span<const std::int32_t> ids, std::size_t rows) {
    std::vector<float> logits(rows * model.config.vocab_size);
    session.call(ids, std::min<std::size_t>(20, ids.size()), {logits.data(), {rows, model.config.vocab_size}});
    return logits;
  };
  EXPECT_EQ(call(plain, question, 4), call(recorded, question, 4));
  EXPECT_EQ(weights.tokens, 4U);
  EXPECT_EQ(weights.sums.size(), 140U) << "the document, and ten tokens of the question";
  const double after_question = std::accumulate(weights.sums.begin(), weights.sums.end(), 0.0);
  EXPECT_GT(after_question, 0.1);
  EXPECT_LT(after_question, 4) << "some of it stays local";
  for (const std::int32_t id : question) EXPECT_EQ(call(plain, {&id, 1}, 1), call(recorded, {&id, 1}, 1));
  EXPECT_EQ(weights.tokens, 34U);
  recorded.set_record(nullptr);
  call(recorded, {&question[0], 1}, 1);
  EXPECT_EQ(weights.tokens, 34U);
}

INSTANTIATE_TEST_SUITE_P(ByLookup, RecordTest, ::testing::Values("dense", "exact", "Flat"),
                         [](const auto& each) { return std::string(each.param); });

}  // namespace
}  // namespace memlane
