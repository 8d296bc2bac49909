// Steps of decoding on a GPU that makes no graphs, or for which there is no reason to make any.

#include <gtest/gtest.h>

#include "runtime/cuda/cuda_model.h"
#include "runtime/session.h"
#include "tests/emulated_cuda/device.h"
#include "tests/reference/random_checkpoint.h"
#include "tests/temporary_folder.h"

namespace memlane::testing {
namespace {

class EmulatedSteps : public ::testing::Test {
 protected:
  void SetUp() override {
    reference::RandomModel shape = reference::gpu_model();
    shape.window = shape.last_context = 40;
    reference::write_random_checkpoint(folder_.path(), shape, 5);
    model_.emplace(load_model(exec_, folder_.path(), DType::bf16, {0}));
    settings_ = resolve_memory_settings(model_->config, {});
  }
  void TearDown() override { emulated_device().makes_graphs = true; }

  std::vector<std::vector<float>> logits(Session& session) {
    std::vector<std::vector<float>> all;
    reference::Random random(2);
    for (const std::size_t tokens : {50, 1, 1, 1, 1, 1, 3, 1}) {
      std::vector<float> row(model_->config.vocab_size, NAN);
      session.call(random.ids(tokens, model_->config.vocab_size), 30, {row.data(), {1, row.size()}});
      all.push_back(row);
    }
    return all;
  }
  std::vector<std::vector<float>> logits() {
    Session session(exec_, *model_, settings_, Lookup{});
    return logits(session);
  }

  TemporaryFolder folder_;
  CpuExec exec_{2};
  std::optional<Model> model_;
  MemorySettings settings_;
};

TEST_F(EmulatedSteps, AreLaunchedOneByOneAndOneLineSaysSoWhereNoGraphCanBeMade) {
  model_->cuda->graphs = false;
  const auto one_by_one = logits();
  model_->cuda->graphs = true;
  emulated_device().makes_graphs = false;
  ::testing::internal::CaptureStderr();
  Session session(exec_, *model_, settings_, Lookup{});
  EXPECT_EQ(logits(session), one_by_one);
  logits(session);
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_NE(said.find("this graph cannot be made"), std::string::npos) << said;
  EXPECT_EQ(model_->cuda->steps.replayed, 0U);
}

TEST_F(EmulatedSteps, AreNoGraphsWhereEntriesAreStreamed) {
  model_->cuda->limits.piece = 1;  // a window at a time
  const auto resident = logits();
  const std::size_t replayed = model_->cuda->steps.replayed;
  EXPECT_GT(replayed, 0U);
  const Memory memory(entry_shape(model_->config, settings_), Lookup{});
  const CudaPlan needs =
      plan_session(model_->cuda->exec, model_->config, settings_, model_->precision, memory, model_->cuda->limits);
  model_->cuda->limits.bytes = needs.window + needs.workspace + needs.staging;
  EXPECT_EQ(logits(), resident);
  EXPECT_EQ(model_->cuda->steps.replayed, replayed);
}

TEST_F(EmulatedSteps, AreNotWhatANextTokenWaitsForOnceTheFlagIsSet) {
  std::atomic<bool> stop = false;
  Session session(exec_, *model_, settings_, Lookup{});
  session.set_stop_flag(&stop);
  Sampler sampler({.temperature = 1});
  std::int32_t id = 3;
  for (int step = 0; step < 4; ++step) id = session.next({&id, 1}, 1, sampler);
  stop = true;
  EXPECT_THROW(session.next({&id, 1}, 1, sampler), Interrupted);
}

TEST_F(EmulatedSteps, StopWhenTheFlagIsSet) {
  std::atomic<bool> stop = false;
  Session session(exec_, *model_, settings_, Lookup{});
  session.set_stop_flag(&stop);
  const auto before = logits(session);
  std::vector<float> row(model_->config.vocab_size);
  const std::vector<std::int32_t> id = {3};
  const auto call = [&] { session.call(id, 30, {row.data(), {1, row.size()}}); };
  stop = true;
  EXPECT_THROW(call(), Interrupted);
  stop = false;
  call();
  Session other(exec_, *model_, settings_, Lookup{});
  EXPECT_EQ(logits(other), before);
  std::vector<float> expected = row;
  std::fill(row.begin(), row.end(), NAN);
  other.call(id, 30, {row.data(), {1, row.size()}});
  EXPECT_EQ(row, expected);
}

}  // namespace
}  // namespace memlane::testing
