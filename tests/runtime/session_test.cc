// What holds for every model and input: properties of sessions, to the last bit unless a test says otherwise.

#include "runtime/session.h"

#include <atomic>
#include <nlohmann/json.hpp>

#include "tests/golden_case.h"
#include "tests/reference/random_values.h"
#include "tests/runtime/test_files.h"

namespace memlane::testing {
namespace {

using Ids = std::vector<std::int32_t>;

struct Case {
  const char* model;
  const char* lookup;
  DType compute;
};

/// A model with memory layers, small windows and a lookup.
class Sessions : public ::testing::TestWithParam<Case> {
 protected:
  static std::filesystem::path folder() {
    return GetParam().model == std::string("stories260K") ? stories260k_folder() : golden_folder(GetParam().model);
  }
  static MemoryOverrides overrides() {
    if (GetParam().model != std::string("stories260K")) return {};
    return {.mem_layers = std::vector<int>{2, 3}, .window = 48, .last_context_length = 20, .mem_dtype = DType::bf16};
  }
  static Lookup lookup() {
    Lookup result = Lookup::named(GetParam().lookup);
    result.top_k = 10;
    return result;
  }

  std::size_t vocab() const { return model_.config.vocab_size; }
  Ids random_ids(std::size_t count, std::uint64_t seed = 3) const {
    return reference::Random(seed).ids(count, vocab());
  }
  Session session(CpuExec& exec, std::vector<const DocumentMemory*> documents = {}) const {
    return {exec, model_, settings_, lookup(), documents};
  }
  std::vector<float> call(Session& session, std::span<const std::int32_t> ids, std::size_t last) const {
    return call_for_logits(session, model_, ids, last);
  }
  /// Reads a document window by window.
  void read(Session& session, const Ids& document) const {
    for (std::size_t begin = 0; begin < document.size(); begin += settings_.window) {
      session.read_window(std::span(document).subspan(begin, std::min(settings_.window, document.size() - begin)));
    }
  }

  CpuExec exec_{2};
  Model model_ = load_model(exec_, folder(), GetParam().compute);
  MemorySettings settings_ = resolve_memory_settings(model_.config, overrides());
};

TEST_P(Sessions, MemoryLayersChangeNothingWhileThePromptFits) {
  MemorySettings plain = settings_;
  plain.mem_layers.clear();
  if (!settings_.mem_positionals) GTEST_SKIP() << "without positions in its memory layers a model is another one";
  Session with = session(exec_), without(exec_, model_, plain, Lookup{});
  const Ids ids = random_ids(settings_.window);
  for (const auto& [begin, end] : {std::pair<std::size_t, std::size_t>{0, 7}, {7, 8}, {8, settings_.window}}) {
    const auto part = std::span(ids).subspan(begin, end - begin);
    EXPECT_EQ(call(with, part, settings_.window), call(without, part, settings_.window));
  }
  EXPECT_EQ(with.memory_length(), 0U);
}

TEST_P(Sessions, WindowsReadOneByOneAndAQuestionEqualOneCall) {
  for (const std::size_t document_tokens : {settings_.window, 2 * settings_.window + 5, std::size_t{1}}) {
    for (const std::size_t question_tokens : {std::size_t{1}, settings_.window / 2, settings_.window}) {
      const Ids document = random_ids(document_tokens), question = random_ids(question_tokens, 4);
      Ids both = document;
      both.insert(both.end(), question.begin(), question.end());
      Session whole = session(exec_);
      const auto expected = call(whole, both, question.size());

      Session reader = session(exec_);
      read(reader, document);
      Session asker = session(exec_, {&reader.own_memory()});
      const auto answered_elsewhere = call(asker, question, settings_.window);
      const auto answered = call(reader, question, settings_.window);
      const std::span<const float> tail = std::span(expected).last(answered.size());
      EXPECT_EQ(answered, std::vector<float>(tail.begin(), tail.end())) << document_tokens << " + " << question_tokens;
      EXPECT_EQ(answered_elsewhere, answered) << "another session over the same document";
      EXPECT_EQ(asker.own_memory().entries(), 0U) << "the question does not become memory";
    }
  }
}

TEST_P(Sessions, StepByStepEqualsOneCallWhileItFits) {
  const Ids document = random_ids(settings_.window + 3), question = random_ids(settings_.window - 1, 4);
  Session at_once = session(exec_), stepwise = session(exec_), in_pieces = session(exec_);
  for (Session* each : {&at_once, &stepwise, &in_pieces}) read(*each, document);
  const std::vector<float> expected = call(at_once, question, settings_.window);
  std::vector<float> found, pieces;
  for (std::size_t i = 0; i < question.size(); ++i) {
    const auto step = call(stepwise, std::span(question).subspan(i, 1), 1);
    found.insert(found.end(), step.begin(), step.end());
  }
  for (std::size_t at = 0, size = 1; at < question.size();
       at += size, size = std::min(size + 2, question.size() - at)) {
    const auto piece = call(in_pieces, std::span(question).subspan(at, size), settings_.window);
    pieces.insert(pieces.end(), piece.begin(), piece.end());
  }
  EXPECT_EQ(found, expected);
  EXPECT_EQ(pieces, expected);
}

TEST_P(Sessions, ResultsDoNotDependOnThreads) {
  const Ids prompt = random_ids(2 * settings_.window + 9), then = random_ids(settings_.window + 2, 5);
  std::vector<float> expected;
  for (const std::size_t threads : {1, 2, 3}) {
    CpuExec exec(threads);
    const Model model = load_model(exec, folder(), GetParam().compute);
    Session each(exec, model, settings_, lookup());
    std::vector<float> found = call_for_logits(each, model, prompt, settings_.last_context_length);
    for (std::size_t i = 0; i < then.size(); ++i) {
      const auto step = call_for_logits(each, model, std::span(then).subspan(i, 1), 1);
      found.insert(found.end(), step.begin(), step.end());
    }
    if (threads == 1) expected = found;
    EXPECT_EQ(found, expected) << threads << " threads";
  }
}

TEST_P(Sessions, LogitsOfTheLastTokensAreThoseOfAll) {
  const Ids ids = random_ids(2 * settings_.window);
  Session all = session(exec_);
  const std::vector<float> expected = call(all, ids, settings_.last_context_length);
  for (const std::size_t wanted :
       {std::size_t{1}, settings_.last_context_length, settings_.last_context_length + 1, settings_.window + 3}) {
    Session some = session(exec_);
    std::vector<float> found(wanted * vocab());
    some.call(ids, settings_.last_context_length, {found.data(), {wanted, vocab()}});
    EXPECT_EQ(found, std::vector<float>(expected.end() - static_cast<std::ptrdiff_t>(found.size()), expected.end()))
        << wanted;
  }
}

TEST_P(Sessions, ContinueFromTheirSegmentsAsIfNeverSaved) {
  const Ids document = random_ids(3 * settings_.window - 4), question = random_ids(9, 4);
  Session whole = session(exec_);
  read(whole, document);
  const Ids begun(document.begin(), document.begin() + static_cast<std::ptrdiff_t>(2 * settings_.window));
  Session first = session(exec_), second = session(exec_);
  read(first, begun);
  const EntryShape shape = entry_shape(model_.config, settings_);
  for (const Segment& segment : first.own_memory().segments()) {
    second.own_memory().append(Segment(shape, segment.count(), segment.bytes().data()));
  }
  read(second, Ids(document.begin() + static_cast<std::ptrdiff_t>(begun.size()), document.end()));
  EXPECT_EQ(call(second, question, settings_.window), call(whole, question, settings_.window));
}

TEST_P(Sessions, AnInterruptedWindowHasNotBeenRead) {
  const Ids document = random_ids(2 * settings_.window), question = random_ids(5, 4);
  Session stopped = session(exec_), undisturbed = session(exec_);
  read(undisturbed, document);
  stopped.read_window(std::span(document).first(settings_.window));
  std::atomic<bool> stop{true};
  stopped.set_stop_flag(&stop);
  EXPECT_THROW(stopped.read_window(std::span(document).subspan(settings_.window)), Interrupted);
  EXPECT_EQ(stopped.memory_length(), settings_.window);
  EXPECT_EQ(stopped.local_length(), 0U);
  stop = false;
  stopped.read_window(std::span(document).subspan(settings_.window));
  EXPECT_EQ(call(stopped, question, settings_.window), call(undisturbed, question, settings_.window));
}

TEST_P(Sessions, RefuseIdsOutsideTheVocabularyAndStayAsTheyWere) {
  Session tried = session(exec_), fresh = session(exec_);
  const Ids good = random_ids(6);
  for (const std::int32_t bad : {-1, static_cast<std::int32_t>(vocab()), 2147483647}) {
    Ids ids = good;
    ids[3] = bad;
    EXPECT_NE(input_error_of([&] { call(tried, ids, settings_.last_context_length); }).find(std::to_string(bad)),
              std::string::npos);
    EXPECT_NE(input_error_of([&] { tried.read_window(ids); }), "");
  }
  EXPECT_EQ(call(tried, good, settings_.window), call(fresh, good, settings_.window));
}

TEST_P(Sessions, RefuseCallsTheirContractExcludes) {
  Session each = session(exec_);
  const Ids ids = random_ids(4);
  EXPECT_THROW(each.call({}, 1, {}), std::logic_error);
  EXPECT_THROW(each.call(ids, 0, {}), std::logic_error);
  EXPECT_THROW(each.call(ids, settings_.window + 1, {}), std::logic_error);
  EXPECT_THROW(each.read_window(random_ids(settings_.window + 1)), std::logic_error);
  each.call(ids, 4, {});
  EXPECT_THROW(each.read_window(ids), std::logic_error) << "a live local cache";
}

INSTANTIATE_TEST_SUITE_P(
    Of, Sessions,
    ::testing::Values(Case{"longllama-f32", "dense", DType::f32}, Case{"longllama-f32", "exact", DType::f32},
                      Case{"longllama-bf16-memory", "dense", DType::f32},
                      Case{"longllama-no-memory-positions", "dense", DType::f32},
                      Case{"stories260K", "dense", DType::f32}, Case{"stories260K", "exact", DType::f32},
                      Case{"stories260K", "dense", DType::bf16}, Case{"stories260K", "exact", DType::bf16}),
    [](const auto& each) {
      std::string name = std::string(each.param.model) + "_" + each.param.lookup;
      name += each.param.compute == DType::bf16 ? "_bf16" : "_f32";
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

/// Greedy tokens from a prompt on.
Ids continue_greedily(Session& session, const Model& model, Ids prompt, std::size_t count, std::size_t last) {
  Ids found;
  std::vector<float> logits(model.config.vocab_size);
  while (found.size() < count) {
    session.call(prompt, last, {logits.data(), {1, logits.size()}});
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    found.push_back(static_cast<std::int32_t>(best));
    prompt = {found.back()};
  }
  return found;
}

TEST(Stories260K, GreedyDecodingGivesThePublishedText) {
  const auto expected = nlohmann::json::parse(read_text(golden_folder("stories260K") / "greedy_200.json"));
  CpuExec exec(2);
  const Model model = load_model(exec, stories260k_folder());
  for (const bool with_memory_layers : {false, true}) {
    MemoryOverrides overrides;
    if (with_memory_layers) overrides.mem_layers = std::vector<int>{2, 3};
    const MemorySettings settings = resolve_memory_settings(model.config, overrides);
    Session session(exec, model, settings, Lookup{});
    const auto ids = expected.at("greedy_ids").get<Ids>();
    EXPECT_EQ(continue_greedily(session, model, expected.at("prompt_ids").get<Ids>(), ids.size(), settings.window),
              ids);
  }
}

}  // namespace
}  // namespace memlane::testing
