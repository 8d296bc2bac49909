// Every way in which layers look at their local context, against the reference that does it pair by pair in double
// precision, and what must hold between the ways.

#include "runtime/local_attention.h"

#include <optional>

#include "runtime/local_settings.h"
#include "tests/golden_case.h"
#include "tests/reference/random_checkpoint.h"
#include "tests/reference/reference_model.h"
#include "tests/runtime/test_files.h"
#include "tests/temporary_folder.h"

namespace memlane::testing {
namespace {

using Ids = std::vector<std::int32_t>;

/// A random model of four layers, trained (so its config says) on 12 tokens.
class LocalContext : public ::testing::Test {
 protected:
  LocalContext() {
    reference::write_random_checkpoint(folder_.path(), {.layers = 4, .mem_layers = "[1, 3]"}, 5);
    model_.emplace(load_model(exec_, folder_.path(), DType::f32));
  }

  MemorySettings settings(const MemoryOverrides& overrides) const {
    return resolve_memory_settings(model_->config, overrides);
  }
  MemorySettings plain(MemoryOverrides overrides) const {
    overrides.mem_layers.emplace();
    return settings(overrides);
  }
  Ids random_ids(std::size_t count, std::uint64_t seed = 7) const {
    return reference::Random(seed).ids(count, model_->config.vocab_size);
  }

  /// The logits of calls of the given sizes, one after the other.
  std::vector<float> logits(const MemorySettings& how, const Ids& ids, const std::vector<std::size_t>& calls,
                            std::size_t threads = 1) const {
    CpuExec exec(threads);
    Session session(exec, *model_, how, Lookup{});
    std::vector<float> all;
    std::size_t at = 0;
    for (const std::size_t tokens : calls) {
      const auto part = call_for_logits(session, *model_, std::span(ids).subspan(at, tokens), how.window);
      all.insert(all.end(), part.begin(), part.end());
      at += tokens;
    }
    return all;
  }

  /// Expects a session and the reference to agree on every logit of the calls.
  void expect_reference(const MemorySettings& how, const std::vector<std::size_t>& calls,
                        std::size_t last_context_length, DType compute = DType::f32, double tolerance = 1e-4) {
    CpuExec exec(1);
    const Model model = load_model(exec, folder_.path(), compute);
    Session session(exec, model, how, Lookup{});
    reference::ReferenceModel truth(folder_.path(), how, compute);
    std::uint64_t seed = 100;
    for (const std::size_t tokens : calls) {
      const Ids ids = random_ids(tokens, ++seed);
      const std::vector<float> found = call_for_logits(session, model, ids, last_context_length);
      const reference::Matrix expected = truth.call(ids, last_context_length);
      double worst = 0;
      for (std::size_t i = 0; i < found.size(); ++i) {
        const double error = std::abs(found[i] - expected[i / model.config.vocab_size][i % model.config.vocab_size]);
        worst = reference::worse(worst, error);
      }
      EXPECT_LE(worst, tolerance) << "a call of " << tokens << " tokens";
      EXPECT_EQ(session.memory_length(), truth.memory_length());
      if (how.sliding_window == 0) {
        EXPECT_EQ(session.local_length(), truth.local_length());
      }
      ASSERT_FALSE(HasFailure());
    }
  }

  TemporaryFolder folder_;
  CpuExec exec_{1};
  std::optional<Model> model_;
};

// A long prompt, steps, a call that overflows, a long call behind a live context.
const std::vector<std::size_t> kCalls = {150, 1, 1, 9, 33, 1, 70, 5, 1};
const std::vector<std::size_t> kSteps(60, 1);

TEST_F(LocalContext, LongWindowsAreCutInMemoryLayersAlone) {
  for (const std::optional<std::size_t> memory_window : {std::optional<std::size_t>(), {7}, {1}, {48}}) {
    for (const char* rope : {"none", "yarn:factor=4", "linear:factor=2.5"}) {
      SCOPED_TRACE(::testing::Message() << rope << ", memory window " << memory_window.value_or(0));
      const MemorySettings how = settings({.window = 48, .rope = rope, .memory_window = memory_window});
      EXPECT_EQ(how.memory_window, memory_window.value_or(12));
      expect_reference(how, kCalls, 20);
      expect_reference(how, kSteps, 1);
    }
  }
}

TEST_F(LocalContext, MemoryLayersMayBeScaledToo) {
  expect_reference(
      settings({.window = 48, .rope = "yarn:factor=4", .memory_rope = "yarn:factor=4", .memory_window = 48}), kCalls,
      20);
  expect_reference(settings({.window = 48, .rope = "none", .memory_rope = "linear:factor=2", .memory_window = 24}),
                   kCalls, 20);
}

TEST_F(LocalContext, AnOverlapStaysInPlainLayersAndMovesToMemoryOnce) {
  for (const std::size_t overlap : {1, 5, 11}) {
    SCOPED_TRACE(overlap);
    expect_reference(settings({.overlap = overlap}), kCalls, 8);
    expect_reference(plain({.overlap = overlap}), kCalls, 8);
    expect_reference(settings({.overlap = overlap}), kSteps, 1);
    expect_reference(settings({.window = 30, .rope = "yarn:factor=3", .memory_window = 8, .overlap = overlap}), kCalls,
                     20);
  }
}

TEST_F(LocalContext, ASlidingWindowWithSinksHoldsForAnyLength) {
  for (const auto& [sliding, sinks] :
       std::vector<std::pair<std::size_t, std::size_t>>{{12, 4}, {12, 0}, {9, 1}, {9, 8}, {1, 0}, {2, 1}}) {
    SCOPED_TRACE(::testing::Message() << sliding << " with " << sinks << " sinks");
    expect_reference(plain({.sliding_window = sliding, .sinks = sinks}), kCalls, 12);
    expect_reference(settings({.sliding_window = sliding, .sinks = sinks}), kCalls, 8);
    expect_reference(plain({.sliding_window = sliding, .sinks = sinks}), kSteps, 1);
    expect_reference(settings({.window = 40, .rope = "yarn:factor=4", .sliding_window = sliding, .sinks = sinks}),
                     kCalls, 8);
  }
}

TEST_F(LocalContext, DistancesAreCapped) {
  for (const std::size_t cap : {1, 5, 39, 40, 1000}) {
    SCOPED_TRACE(cap);
    expect_reference(plain({.window = 40, .rope = "none", .capped_distance = cap}), kCalls, 40);
    expect_reference(settings({.window = 40, .rope = "yarn:factor=4", .capped_distance = cap}), kCalls, 20);
    expect_reference(plain({.window = 40, .rope = "yarn:factor=4", .capped_distance = cap}), kSteps, 1);
    expect_reference(settings({.window = 40, .rope = "yarn:factor=4", .overlap = 9, .capped_distance = cap}), kCalls,
                     20);
  }
}

TEST_F(LocalContext, FrequenciesFollowTheLength) {
  for (const char* rope : {"dynamic-ntk:factor=2", "dynamic-linear", "dynamic-yarn:factor=1"}) {
    for (const DynamicMode mode : {DynamicMode::whole_sequence, DynamicMode::consistent, DynamicMode::inconsistent}) {
      SCOPED_TRACE(::testing::Message() << rope << " " << name_of(mode));
      const MemorySettings alone = plain({.window = 50, .rope = rope, .dynamic_mode = mode});
      expect_reference(alone, kSteps, 1);
      expect_reference(alone, kCalls, 50);
      expect_reference(settings({.window = 50, .rope = rope, .dynamic_mode = mode}), kCalls, 20);
      const MemorySettings both =
          settings({.window = 50, .rope = rope, .memory_rope = rope, .memory_window = 30, .dynamic_mode = mode});
      expect_reference(both, kCalls, 20);
      expect_reference(both, kSteps, 1);
    }
  }
}

TEST_F(LocalContext, AConsistentOverlapKeepsUpToo) {
  expect_reference(plain({.window = 40, .rope = "dynamic-ntk:factor=2", .overlap = 13}), kCalls, 20);
  expect_reference(
      settings({.window = 40, .rope = "dynamic-yarn:factor=1", .overlap = 13, .dynamic_mode = DynamicMode::consistent}),
      kSteps, 1);
}

// With bfloat16 an element may be rounded the other way than the reference's; the bound is that of a few such.
TEST_F(LocalContext, WorksInBfloat16) {
  const std::vector<std::size_t> calls = {40, 1, 1, 20};
  for (const MemorySettings& how :
       {plain({.sliding_window = 9, .sinks = 2}), plain({.window = 40, .rope = "none", .capped_distance = 7}),
        plain({.window = 40, .rope = "dynamic-ntk:factor=2"}), settings({.overlap = 5})}) {
    expect_reference(how, calls, 8, DType::bf16, 0.25);
  }
}

TEST_F(LocalContext, IsThePlainOneWhereTheWayChangesNothing) {
  const Ids ids = random_ids(40);
  const std::vector<std::size_t> calls = {25, 1, 14};
  const std::vector<float> expected = logits(plain({.window = 40, .rope = "none"}), ids, calls);
  EXPECT_LE(max_difference(logits(plain({.window = 40, .rope = "none", .sliding_window = 40, .sinks = 4}), ids, calls),
                           expected),
            1e-5);
  for (const MemorySettings& same :
       {plain({.window = 40, .rope = "none", .capped_distance = 40}), plain({.window = 40, .rope = "linear:factor=1"}),
        plain({.window = 40, .rope = "ntk-aware:factor=1"}), plain({.window = 40, .rope = "none", .overlap = 17}),
        plain({.window = 40, .rope = "none", .sliding_window = 40})}) {
    EXPECT_EQ(logits(same, ids, calls), expected);
  }
}

TEST_F(LocalContext, WithAFullMemoryWindowAndNoOverlapIsTheDefault) {
  const Ids ids = random_ids(100);
  const std::vector<std::size_t> calls = {60, 1, 30, 9};
  EXPECT_EQ(logits(settings({.memory_window = 12, .overlap = 0}), ids, calls), logits(settings({}), ids, calls));
}

std::vector<MemoryOverrides> cut_anywhere() {
  return {{.window = 48, .rope = "yarn:factor=4"},
          {.window = 30, .rope = "none", .memory_window = 7, .overlap = 11},
          {.overlap = 3},
          {.sliding_window = 10, .sinks = 2},
          {.window = 48, .rope = "none", .capped_distance = 6}};
}

TEST_F(LocalContext, DoesNotDependOnHowTokensAreCutIntoCalls) {
  const Ids ids = random_ids(130);
  for (const MemoryOverrides& overrides : cut_anywhere()) {
    const MemorySettings how = settings(overrides);
    if (!fills_up(how)) continue;
    const std::vector<float> one_by_one = logits(how, ids, std::vector<std::size_t>(130, 1));
    EXPECT_EQ(logits(how, ids, {how.window, 1, 5, 130 - how.window - 6}), one_by_one);
    EXPECT_EQ(logits(how, ids, {3, 7, how.window, 2, 118 - how.window}), one_by_one);
  }
}

TEST_F(LocalContext, DoesNotDependOnThreads) {
  const Ids ids = random_ids(130);
  std::vector<MemoryOverrides> ways = cut_anywhere();
  ways.push_back({.window = 48, .rope = "dynamic-ntk:factor=2"});
  for (const MemoryOverrides& overrides : ways) {
    const std::vector<float> expected = logits(settings(overrides), ids, {60, 1, 1, 68}, 1);
    for (const std::size_t threads : {2, 5}) {
      EXPECT_EQ(logits(settings(overrides), ids, {60, 1, 1, 68}, threads), expected);
    }
  }
}

TEST_F(LocalContext, LogitsOfTheLastTokensAreThoseOfAll) {
  const Ids ids = random_ids(130);
  for (const MemoryOverrides& overrides : cut_anywhere()) {
    const MemorySettings how = settings(overrides);
    const std::size_t vocab = model_->config.vocab_size;
    for (const std::size_t last : {std::size_t{1}, how.window}) {
      Session all(exec_, *model_, how, Lookup{});
      const std::vector<float> expected = call_for_logits(all, *model_, ids, last);
      for (const std::size_t wanted : {1, 9, 14, 40, 60, 129}) {
        Session some(exec_, *model_, how, Lookup{});
        std::vector<float> found(wanted * vocab);
        some.call(ids, last, {found.data(), {wanted, vocab}});
        EXPECT_TRUE(std::equal(found.rbegin(), found.rend(), expected.rbegin())) << wanted << " of " << last;
      }
    }
  }
}

TEST_F(LocalContext, LongWindowsContinueFromTheirSegmentsAsIfNeverStored) {
  const MemorySettings how = settings({.window = 30, .rope = "yarn:factor=3", .memory_window = 8});
  const Ids document = random_ids(100), question = random_ids(9, 8);
  Session whole(exec_, *model_, how, Lookup{}), first(exec_, *model_, how, Lookup{}),
      second(exec_, *model_, how, Lookup{});
  const auto read = [&](Session& session, std::size_t from, std::size_t to) {
    std::size_t entries = 0;
    while (from < to) {
      const std::size_t count = std::min(session.next_window(), to - from);
      for (const Segment& segment : session.read_window(std::span(document).subspan(from, count))) {
        EXPECT_LE(segment.count(), 8U);
        entries += segment.count();
      }
      from += count;
    }
    return entries;
  };
  EXPECT_EQ(read(whole, 0, 100), 100U);
  EXPECT_EQ(whole.own_memory().segments().size(), 3U * 4U + 2U);
  read(first, 0, 60);
  const EntryShape shape = entry_shape(model_->config, how);
  for (const Segment& segment : first.own_memory().segments()) {
    second.own_memory().append(Segment(shape, segment.count(), segment.bytes().data()));
  }
  read(second, 60, 100);
  EXPECT_EQ(call_for_logits(second, *model_, question, 9), call_for_logits(whole, *model_, question, 9));
}

TEST_F(LocalContext, ReadingWindowsAndAskingEqualsOneCallWhereTheyFillUp) {
  const Ids document = random_ids(100), question = random_ids(9, 8);
  Ids both = document;
  both.insert(both.end(), question.begin(), question.end());
  for (const MemoryOverrides& overrides : cut_anywhere()) {
    const MemorySettings how = settings(overrides);
    Session reader(exec_, *model_, how, Lookup{}), caller(exec_, *model_, how, Lookup{});
    for (std::size_t begin = 0; begin < document.size();) {
      const std::size_t count = std::min(reader.next_window(), document.size() - begin);
      reader.read_window(std::span(document).subspan(begin, count));
      begin += count;
    }
    const std::vector<float> expected = call_for_logits(caller, *model_, both, question.size());
    const std::vector<float> found = call_for_logits(reader, *model_, question, how.window);
    if (how.sliding_window > 0) continue;  // memory windows end with read windows there, not with what fits
    EXPECT_TRUE(std::equal(found.rbegin(), found.rend(), expected.rbegin())) << "window " << how.window;
  }
}

TEST_F(LocalContext, TakesWhatItSaysItTakes) {
  const auto bytes = [&](const MemoryOverrides& overrides) {
    return Session::bytes(model_->config, settings(overrides), DType::f32, 48);
  };
  const MemoryOverrides plain_way = {.window = 48, .rope = "none", .memory_window = 48};
  MemoryOverrides cut = plain_way, overlapping = plain_way, capped = plain_way;
  cut.memory_window = 12;
  overlapping.overlap = 4;
  capped.capped_distance = 9;
  EXPECT_LT(bytes(cut), bytes(plain_way));
  EXPECT_GT(bytes(overlapping), bytes(plain_way));
  EXPECT_GT(bytes(capped), bytes(plain_way));
}

TEST_F(LocalContext, RefusesSettingsThatContradictEachOtherOrTheirRange) {
  const std::vector<std::pair<MemoryOverrides, std::vector<std::string>>> cases = {
      {{.memory_window = 13}, {"--memory-window", "1 to 12", "13"}},
      {{.memory_window = 0}, {"--memory-window", "found 0"}},
      {{.mem_layers = std::vector<int>{}, .memory_window = 4}, {"--memory-window", "--mem-layers"}},
      {{.overlap = 12}, {"--overlap", "0 to 11", "12"}},
      {{.sliding_window = 13}, {"--sliding-window", "1 to 12"}},
      {{.sliding_window = 0}, {"--sliding-window", "found 0"}},
      {{.sinks = 2}, {"--sinks", "--sliding-window"}},
      {{.sliding_window = 5, .sinks = 5}, {"--sinks", "0 to 4"}},
      {{.capped_distance = 0}, {"--capped-distance", "found 0"}},
      {{.overlap = 3, .sliding_window = 5}, {"--sliding-window", "--overlap"}},
      {{.sliding_window = 5, .capped_distance = 3}, {"--sliding-window", "--capped-distance"}},
      {{.dynamic_mode = DynamicMode::consistent}, {"--dynamic-mode", "--rope"}},
      {{.window = 40, .rope = "dynamic-ntk:factor=2", .sliding_window = 5}, {"--sliding-window", "--dynamic-mode"}},
      {{.window = 40, .rope = "dynamic-ntk:factor=2", .capped_distance = 5}, {"--capped-distance", "--dynamic-mode"}},
      {{.window = 40, .rope = "dynamic-ntk:factor=2", .overlap = 5, .dynamic_mode = DynamicMode::inconsistent},
       {"--overlap", "--dynamic-mode inconsistent"}},
  };
  for (const auto& [overrides, named] : cases) {
    const std::string error = input_error_of([&, given = overrides] { settings(given); });
    for (const std::string& name : named) EXPECT_NE(error.find(name), std::string::npos) << error;
  }
  EXPECT_NE(input_error_of([] { dynamic_mode_named("--dynamic-mode", "often"); }).find("often"), std::string::npos);
}

}  // namespace
}  // namespace memlane::testing
