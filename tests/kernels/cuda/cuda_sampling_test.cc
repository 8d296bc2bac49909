// Choosing a token on the GPU, against the CPU's choice.

#include "kernels/cuda/graph.h"
#include "kernels/cuda/sampling.h"
#include "tests/kernels/cuda/cuda_fixture.h"
#include "tests/reference/sampling.h"

namespace memlane::testing {
namespace {

class CudaSampling : public CudaTest {
 protected:
  std::int32_t chosen(const reference::RandomChoice& of) {
    const CudaBuffer<float> logits = on_gpu(of.logits);
    const CudaBuffer<std::uint32_t> seen = on_gpu(of.seen);
    const CudaBuffer<std::uint64_t> uniform = on_gpu(std::vector<std::uint64_t>{of.uniform});
    CudaBuffer<std::int32_t> token = on_gpu(std::vector<std::int32_t>{-7});
    choose_token(exec(), logits.view<1>({logits.size()}), of.draw, seen.view<1>({seen.size()}), uniform.view<1>({1}),
                 token.view<1>({1}));
    return back(token).front();
  }

  /// Rounds in which the GPU's token is not the CPU's. An exponential that differs in its last place is a reason only
  /// where the random number is as near to the border between two tokens.
  int different(std::size_t most_tokens, int rounds) {
    int count = 0;
    for (int round = 0; round < rounds; ++round) {
      const reference::RandomChoice of = reference::random_choice(random_, most_tokens);
      count += chosen(of) == choose_token(cpu_, of.logits, of.draw, of.seen, of.uniform) ? 0 : 1;
    }
    return count;
  }

  CpuExec cpu_{1};
  reference::Random random_{12};
};

TEST_F(CudaSampling, ChoosesWhatTheCpuChooses) {
  EXPECT_LE(different(300, 500), 3);
}

TEST_F(CudaSampling, ChoosesWhatTheCpuChoosesAmongMany) {
  EXPECT_LE(different(150000, 200), 2);
}

TEST_F(CudaSampling, IsGreedyToTheToken) {
  for (int round = 0; round < 300; ++round) {
    reference::RandomChoice of = reference::random_choice(random_, 40000);
    of.draw.temperature = 0;
    ASSERT_EQ(chosen(of), choose_token(cpu_, of.logits, of.draw, of.seen, of.uniform)) << "round " << round;
  }
}

TEST_F(CudaSampling, SaysThatALogitIsNoNumber) {
  for (const float temperature : {0.0F, 1.0F}) {
    for (const std::size_t at : {0, 1000, 31999}) {
      reference::RandomChoice of{.logits = random_.floats(32000), .seen = {0}, .draw = {.temperature = temperature}};
      of.logits[at] = NAN;
      EXPECT_EQ(chosen(of), kNotANumber);
    }
  }
}

/// What changes from token to token is read anew by every launch, and threads that add in another order change nothing.
TEST_F(CudaSampling, ChoosesAnewInEveryLaunchOfAGraph) {
  constexpr std::size_t kVocab = 32000;
  const std::vector<float> values = random_.floats(kVocab, 8);
  const Draw draw = {.temperature = 1, .top_k = 500, .top_p = 0.95F, .repetition_penalty = 1.5F};
  const CudaBuffer<float> logits = on_gpu(values);
  CudaBuffer<std::uint32_t> seen(token_set_words(kVocab));
  CudaBuffer<std::uint64_t> uniform(1);
  CudaBuffer<std::int32_t> token(1);
  exec().scratch(choose_token_bytes(kVocab));
  CudaGraph graph(exec());
  graph.begin();
  choose_token(exec(), logits.view<1>({kVocab}), draw, seen.view<1>({seen.size()}), uniform.view<1>({1}),
               token.view<1>({1}));
  graph.end();
  int different = 0;
  for (int round = 0; round < 100; ++round) {
    std::vector<std::uint32_t> set(seen.size());
    for (std::uint32_t& word : set) word = random_.bits() & random_.bits();
    const std::uint64_t number = static_cast<std::uint64_t>(random_.bits()) << 32 | random_.bits();
    detail::copy_to_device(exec(), seen.data(), set.data(), seen.bytes());
    detail::copy_to_device(exec(), uniform.data(), &number, sizeof number);
    graph.launch();
    const std::int32_t first = back(token).front();
    graph.launch();
    ASSERT_EQ(back(token).front(), first);
    different += first == choose_token(cpu_, values, draw, set, number) ? 0 : 1;
  }
  EXPECT_LE(different, 1);
}

}  // namespace
}  // namespace memlane::testing
