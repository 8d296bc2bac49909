// Choosing a token as on the GPU, emulated, against the CPU's choice, which is held against sorting.

#include <gtest/gtest.h>

#include "kernels/cuda/sample_block.h"
#include "kernels/exec.h"
#include "tests/kernels/emulated_warp.h"
#include "tests/reference/random_values.h"
#include "tests/reference/sampling.h"

namespace memlane::testing {
namespace {

template <int Warps>
std::int32_t emulate(const reference::RandomChoice& of) {
  const std::size_t vocab = of.logits.size();
  std::vector<std::uint64_t> lists(2 * vocab, 0xdeadbeefdeadbeefU);
  std::int32_t token = -7;
  cuda::SampleTask task;
  task.logits = of.logits.data();
  task.vocab = static_cast<std::uint32_t>(vocab);
  task.temperature = of.draw.temperature;
  task.top_k = of.draw.top_k < vocab ? static_cast<std::uint32_t>(of.draw.top_k) : 0;
  task.top_p = of.draw.top_p < 1 ? in_64_bits(of.draw.top_p) : 0;
  task.repetition_penalty = of.draw.repetition_penalty;
  task.seen = of.seen.data();
  task.uniform = &of.uniform;
  task.lists = lists.data();
  task.chosen = &token;
  run_block(Warps, sizeof(cuda::SampleMemory), [&](EmulatedWarp& warp, std::uint32_t* shared) {
    cuda::sample_block<Warps>(warp, task, *reinterpret_cast<cuda::SampleMemory*>(shared));
  });
  return token;
}

template <int Warps>
void compare(std::uint64_t seed, int rounds, std::size_t most_tokens) {
  CpuExec exec(1);
  reference::Random random(seed);
  for (int round = 0; round < rounds; ++round) {
    const reference::RandomChoice of = reference::random_choice(random, most_tokens);
    ASSERT_EQ(emulate<Warps>(of), choose_token(exec, of.logits, of.draw, of.seen, of.uniform)) << "round " << round;
  }
}

TEST(CudaSampling, ChoosesWhatTheCpuChooses) {
  compare<1>(1, 5000, 300);
  compare<1>(2, 20, 50000);
}

TEST(CudaSampling, ChoosesWhatTheCpuChoosesWithManyWarps) {
  compare<3>(3, 300, 1000);
  compare<4>(4, 10, 30000);
}

TEST(CudaSampling, SaysThatALogitIsNoNumber) {
  for (const float temperature : {0.0F, 1.0F}) {
    for (const float nan : {NAN, -NAN}) {
      for (const std::size_t at : {0, 50, 99}) {
        reference::RandomChoice of{
            .logits = std::vector<float>(100, INFINITY), .seen = {}, .draw = {.temperature = temperature}};
        of.logits[at] = nan;
        EXPECT_EQ(emulate<2>(of), kNotANumber);
      }
    }
  }
}

}  // namespace
}  // namespace memlane::testing
