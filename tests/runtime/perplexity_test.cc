#include "runtime/perplexity.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/golden_case.h"

namespace memlane::testing {
namespace {

class Perplexity : public ::testing::Test {
 protected:
  Perplexity() {
    for (int i = 0; i < 32 * 8; ++i) ids_.push_back(3 + i * 37 % 120);
  }
  PerplexityResult score(std::size_t targets, std::size_t memory) {
    const PerplexityTask task{ids_, targets, memory};
    return perplexity_with_memory(exec_, model_, settings_, Lookup{}, task, nullptr, [](std::size_t, std::size_t) {});
  }
  /// -ln p of the tokens of one call but the first of each window of `window` tokens, from token `from` on.
  double call_nll(std::span<const std::int32_t> ids, std::size_t from) {
    Session session(exec_, model_, settings_, Lookup{});
    const auto logits = call_for_logits(session, model_, ids, settings_.window);
    const std::size_t vocab = model_.config.vocab_size;
    double nll = 0;
    for (std::size_t begin = from; begin < ids.size(); begin += settings_.window) {
      nll += sum_nll({logits.data() + begin * vocab, {settings_.window, vocab}}, ids.subspan(begin, settings_.window));
    }
    return nll;
  }

  CpuExec exec_{2};
  Model model_ = load_model(exec_, golden_folder("longllama-f32"), DType::f32);
  MemorySettings settings_ = resolve_memory_settings(model_.config, {});
  std::vector<std::int32_t> ids_;
};

TEST_F(Perplexity, OfOneWindowWithAllBeforeItInMemoryIsThatOfOneCall) {
  const PerplexityResult result = score(32, 32 * 7);
  EXPECT_EQ(result.tokens, 31U);
  EXPECT_NEAR(result.nll, call_nll(ids_, 32 * 7), 1e-3);
}

TEST_F(Perplexity, WithoutMemoryEachWindowStandsAlone) {
  double alone = 0;
  for (std::size_t begin = 32 * 4; begin < ids_.size(); begin += 32)
    alone += call_nll(std::span(ids_).subspan(begin, 32), 0);
  const PerplexityResult result = score(32 * 4, 0);
  EXPECT_EQ(result.tokens, 4U * 31U);
  EXPECT_NEAR(result.nll, alone, 1e-3);
}

TEST_F(Perplexity, MemorySlidesWithTheTargets) {
  // The last target window sees one window of memory, which itself saw one, and so on: not the same as all of them.
  EXPECT_GT(std::abs(score(32 * 2, 32).nll - score(32 * 2, 32 * 6).nll), 1e-3);
  EXPECT_EQ(score(32, 32).tokens, 31U);
}

TEST(SumNll, IsThatOfUniformLogits) {
  const std::vector<float> logits(3 * 8, 0.5F);
  const std::vector<std::int32_t> ids = {1, 2, 3};
  EXPECT_NEAR(sum_nll({logits.data(), {3, 8}}, ids), 2 * std::log(8.0), 1e-9);
}

}  // namespace
}  // namespace memlane::testing
