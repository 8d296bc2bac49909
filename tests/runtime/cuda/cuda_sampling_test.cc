// Tokens that sessions on the GPU choose there, as graphs and kernel by kernel, against what a sampler on the host
// chooses from the logits of a session that is given the same tokens.

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "runtime/cuda/cuda_model.h"
#include "runtime/session.h"
#include "tests/reference/random_checkpoint.h"
#include "tests/reference/random_values.h"
#include "tests/runtime/test_files.h"
#include "tests/temporary_folder.h"

namespace memlane::testing {
namespace {

constexpr std::size_t kTokens = 60, kLastContext = 20;

class CudaSamplingInSessions : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "this machine has no GPU that CUDA can use";
    reference::RandomModel shape = reference::gpu_model();
    shape.window = shape.last_context = 40;
    reference::write_random_checkpoint(folder_.path(), shape, 5);
    model_.emplace(load_model(exec_, folder_.path(), DType::bf16, {0}));
    settings_ = resolve_memory_settings(model_->config, {});
    reference::Random random(6);
    prompt_ = random.ids(70, model_->config.vocab_size);
  }

  std::vector<std::int32_t> generated(const SamplerOptions& options, bool graphs) {
    model_->cuda->graphs = graphs;
    model_->cuda->steps = {};
    Session session(exec_, *model_, settings_, Lookup{});
    Sampler sampler(options);
    std::vector<std::int32_t> ids = {session.next(prompt_, kLastContext, sampler)};
    while (ids.size() < kTokens) ids.push_back(session.next({&ids.back(), 1}, 1, sampler));
    return ids;
  }

  /// Chosen by the CPU.
  std::vector<std::int32_t> generated_from_logits(const SamplerOptions& options) {
    Session session(exec_, *model_, settings_, Lookup{});
    Sampler sampler(options);
    std::vector<float> logits(model_->config.vocab_size);
    const View<float, 2> to(logits.data(), {1, logits.size()});
    session.call(prompt_, kLastContext, to);
    sampler.see(prompt_);
    std::vector<std::int32_t> ids;
    while (true) {
      ids.push_back(sampler.sample(exec_, logits));
      if (ids.size() == kTokens) return ids;
      session.call({&ids.back(), 1}, 1, to);
      sampler.see({&ids.back(), 1});
    }
  }

  TemporaryFolder folder_;
  CpuExec exec_{2};
  std::optional<Model> model_;
  MemorySettings settings_;
  std::vector<std::int32_t> prompt_;
};

/// The GPU's exponential may differ from the host's in the last place, which changes a token once in millions.
TEST_F(CudaSamplingInSessions, ChoosesWhatASamplerChoosesFromTheLogits) {
  const std::vector<SamplerOptions> ways = {
      {},
      {.repetition_penalty = 1.3F},
      {.temperature = 1, .seed = 3},
      {.temperature = 2, .top_k = 20, .top_p = 0.9F, .repetition_penalty = 1.1F, .seed = 4}};
  for (const SamplerOptions& options : ways) {
    const auto expected = generated_from_logits(options);
    EXPECT_EQ(generated(options, false), expected);
    EXPECT_EQ(model_->cuda->steps.replayed, 0U);
    EXPECT_EQ(generated(options, true), expected);
    EXPECT_GT(model_->cuda->steps.replayed, kTokens / 2);
    EXPECT_EQ(model_->cuda->steps.refusal, "");
  }
}

/// One session, one graph: what another sampler is given by value is not what was recorded.
TEST_F(CudaSamplingInSessions, RecordsAGraphAgainForAnotherWayToChoose) {
  const std::vector<SamplerOptions> ways = {
      {}, {.temperature = 1, .seed = 1}, {.temperature = 1, .top_k = 3, .seed = 1}, {.repetition_penalty = 3}};
  const auto tokens = [&](bool graphs) {
    model_->cuda->graphs = graphs;
    model_->cuda->steps = {};
    Session session(exec_, *model_, settings_, Lookup{});
    std::vector<float> logits(model_->config.vocab_size);
    std::vector<std::int32_t> ids = {1};
    for (const SamplerOptions& options : ways) {
      Sampler sampler(options);
      for (int i = 0; i < 5; ++i) ids.push_back(session.next({&ids.back(), 1}, 1, sampler));
      session.call({&ids.back(), 1}, 1, {logits.data(), {1, logits.size()}});
      ids.push_back(sampler.sample(exec_, logits));
    }
    return ids;
  };
  const auto one_by_one = tokens(false);
  EXPECT_EQ(tokens(true), one_by_one);
  EXPECT_GE(model_->cuda->steps.recorded, ways.size());
}

TEST_F(CudaSamplingInSessions, SaysThatLogitsAreNoNumbers) {
  const std::vector<float> norm(model_->config.hidden_size, NAN);
  model_->cuda->weights.final_norm = uploaded(model_->cuda->exec, norm.data(), norm.size());
  model_->cuda->exec.synchronize();
  for (const float temperature : {0.0F, 1.0F}) {
    Session session(exec_, *model_, settings_, Lookup{});
    Sampler sampler({.temperature = temperature});
    const std::vector<std::int32_t> id = {3};
    for (int step = 0; step < 4; ++step) {  // kernel by kernel, recorded and launched again
      const std::string error = input_error_of([&] { session.next(id, 1, sampler); });
      EXPECT_NE(error.find("found NaN"), std::string::npos) << error;
      EXPECT_EQ(error.find('\n'), std::string::npos) << error;
    }
  }
}

}  // namespace
}  // namespace memlane::testing
