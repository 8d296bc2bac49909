#include "runtime/window_eviction.h"

#include <numeric>

#include "tests/golden_case.h"
#include "tests/reference/random_values.h"
#include "tests/runtime/test_files.h"

namespace memlane::testing {
namespace {

using Ids = std::vector<std::int32_t>;
using Rule = EvictionPolicy::Rule;

/// A small model with two memory layers, windows of 48 tokens.
class WindowEviction : public ::testing::Test {
 protected:
  static constexpr std::size_t kWindow = 48;
  static MemorySettings settings_for(const Model& model, std::vector<int> layers, std::size_t memory_window) {
    MemoryOverrides overrides = {
        .mem_layers = std::move(layers), .window = kWindow, .last_context_length = 20, .mem_dtype = DType::bf16};
    overrides.memory_window = memory_window;
    return resolve_memory_settings(model.config, overrides);
  }
  Ids random_ids(std::size_t count) const { return reference::Random(3).ids(count, model_.config.vocab_size); }

  struct Read {
    std::vector<std::vector<SeenWindow>> seen;  // after each window
    std::vector<std::vector<std::byte>> segments;
  };
  /// Reads a document with two windows kept.
  Read read(std::size_t threads, const MemorySettings& settings, const Lookup& lookup, Rule rule) {
    CpuExec exec(threads);
    Session session(exec, model_, settings, lookup);
    EvictingReader reader(session, settings, EvictionPolicy{rule, 2 * kWindow});
    const Ids ids = random_ids(9 * kWindow + 5);
    Read result;
    for (std::size_t begin = 0; begin < ids.size(); begin += kWindow) {
      const auto window = std::span(ids).subspan(begin, std::min(kWindow, ids.size() - begin));
      for (const Segment& segment : reader.read_window(window)) {
        result.segments.emplace_back(segment.bytes().begin(), segment.bytes().end());
      }
      result.seen.emplace_back(reader.seen().begin(), reader.seen().end());
      reader.evict();
      if (window.size() == kWindow) {
        EXPECT_LE(session.own_memory().entries(), 2 * kWindow);
      }
    }
    return result;
  }

  CpuExec exec_{2};
  Model model_ = load_model(exec_, stories260k_folder(), DType::f32);
};

TEST_F(WindowEviction, IsTheSameWithAnyNumberOfThreads) {
  const MemorySettings settings = settings_for(model_, {2, 3}, kWindow);
  for (const char* name : {"dense", "exact"}) {
    Lookup lookup = Lookup::named(name);
    lookup.top_k = 10;
    const Read one = read(1, settings, lookup, Rule::least_attended);
    for (const std::size_t threads : {2, 5}) {
      const Read other = read(threads, settings, lookup, Rule::least_attended);
      EXPECT_EQ(other.seen, one.seen) << name;
      EXPECT_EQ(other.segments, one.segments) << name;
    }
    EXPECT_NE(one.segments, read(2, settings, lookup, Rule::oldest).segments) << "else it evicted the oldest";
  }
}

TEST_F(WindowEviction, ListsWhatCouldBeStored) {
  for (const std::size_t memory_window : {kWindow, std::size_t{20}}) {
    const MemorySettings settings = settings_for(model_, {1, 2, 3}, memory_window);
    const Read all = read(2, settings, Lookup{}, Rule::least_attended);
    std::vector<std::size_t> counts;
    std::vector<SeenWindow> before;
    for (const std::vector<SeenWindow>& seen : all.seen) {
      const std::size_t first = counts.size(), tokens = seen == all.seen.back() ? 5 : kWindow;
      for (std::size_t begin = 0; begin < tokens; begin += memory_window) {
        counts.push_back(std::min(memory_window, tokens - begin));
      }
      EXPECT_EQ(fault_of(seen, before, first, counts, 2 * kWindow), "");
      before = seen;
    }
  }
}

TEST_F(WindowEviction, RecordsAllOfTheAttentionThatMemoryGets) {
  const MemorySettings settings = settings_for(model_, {1, 3}, kWindow);
  Session session(exec_, model_, settings, Lookup{});
  MemoryWeights weights;
  weights.stride = 1;
  session.set_record(&weights);
  const Ids ids = random_ids(3 * kWindow);
  session.read_window(std::span(ids).first(kWindow));
  EXPECT_TRUE(weights.sums.empty());
  EXPECT_EQ(weights.tokens, kWindow);
  session.read_window(std::span(ids).subspan(kWindow, kWindow));
  EXPECT_EQ(weights.tokens, 2 * kWindow);
  ASSERT_EQ(weights.sums.size(), kWindow);
  const double share = std::accumulate(weights.sums.begin(), weights.sums.end(), 0.0) / kWindow;
  EXPECT_GT(share, 0.05) << "one layer attends; the other only stores and is not part of the mean";
  EXPECT_LT(share, 1);
}

TEST_F(WindowEviction, RecordsOfSomeTokensWhatTheyHaveAmongAll) {
  const MemorySettings settings = settings_for(model_, {1, 2, 3}, kWindow);
  const Ids ids = random_ids(kWindow + 17);
  const auto recorded = [&](std::size_t tokens, std::size_t stride) {
    Session session(exec_, model_, settings, Lookup{});
    session.read_window(std::span(ids).first(kWindow));
    MemoryWeights weights;
    weights.stride = stride;
    session.set_record(&weights);
    session.read_window(std::span(ids).subspan(kWindow, tokens));
    return weights;
  };
  // A token's weights do not depend on those after it: what it adds to a window that ends with it is its own.
  std::vector<double> expected(kWindow);
  for (const std::size_t token : {0, 5, 10, 15}) {
    const std::vector<double> with = recorded(token + 1, 1).sums;
    const std::vector<double> without = token == 0 ? std::vector<double>(kWindow) : recorded(token, 1).sums;
    for (std::size_t i = 0; i < kWindow; ++i) expected[i] += with[i] - without[i];
  }
  const MemoryWeights some = recorded(17, 5);
  EXPECT_EQ(some.tokens, 4U);
  ASSERT_EQ(some.sums.size(), kWindow);
  for (std::size_t i = 0; i < kWindow; ++i) EXPECT_NEAR(some.sums[i], expected[i], 1e-5) << i;
  EXPECT_GT(std::accumulate(expected.begin(), expected.end(), 0.0), 0.01) << "else this shows nothing";
  EXPECT_EQ(recorded(17, 17).tokens, 1U);
  EXPECT_EQ(recorded(17, 1).tokens, 17U);
}

TEST_F(WindowEviction, RecordingChangesNothing) {
  const MemorySettings settings = settings_for(model_, {2, 3}, kWindow);
  const Ids ids = random_ids(2 * kWindow);
  const auto second_window = [&](MemoryWeights* record) {
    Session session(exec_, model_, settings, Lookup{});
    session.set_record(record);
    session.read_window(std::span(ids).first(kWindow));
    const auto bytes = session.read_window(std::span(ids).subspan(kWindow)).front().bytes();
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  };
  MemoryWeights weights;
  weights.stride = 1;
  EXPECT_EQ(second_window(&weights), second_window(nullptr));
}

TEST_F(WindowEviction, IsRefusedWhereNoMemoryLayerAttends) {
  const MemorySettings settings = settings_for(model_, {3}, kWindow);
  Session session(exec_, model_, settings, Lookup{});
  const std::string message = input_error_of([&] {
    EvictingReader(session, settings, EvictionPolicy{Rule::least_attended, kWindow});
  });
  for (const char* part : {"--beyond evict-least-attended", "found 1", "--mem-layers", "evict-oldest"}) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
  EvictingReader(session, settings, EvictionPolicy{Rule::oldest, kWindow});
}

}  // namespace
}  // namespace memlane::testing
