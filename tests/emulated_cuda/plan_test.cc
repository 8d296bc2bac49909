// How the memory of a GPU is divided, and that sessions keep to it: on the emulated GPU every allocation is counted.

#include <gtest/gtest.h>

#include "runtime/cuda/cuda_model.h"
#include "runtime/cuda/cuda_plan.h"
#include "runtime/session.h"
#include "tests/emulated_cuda/device.h"
#include "tests/reference/random_checkpoint.h"
#include "tests/runtime/test_files.h"
#include "tests/temporary_folder.h"

namespace memlane::testing {
namespace {

constexpr CudaPlan kNeeds{.available = 1000, .reserve = 100, .window = 200, .workspace = 50, .staging = 300};

TEST(CudaPlan, GivesWhatIsLeftToEntriesAndSetsStagingAside) {
  const CudaPlan plan = divided(kNeeds);
  EXPECT_TRUE(plan.fits());
  EXPECT_TRUE(plan.streams());
  EXPECT_EQ(plan.resident, 350U);
}

TEST(CudaPlan, StreamsNothingWhereStagingDoesNotFit) {
  CudaPlan needs = kNeeds;
  needs.available = 649;
  const CudaPlan plan = divided(needs);
  EXPECT_TRUE(plan.fits());
  EXPECT_FALSE(plan.streams());
  EXPECT_EQ(plan.resident, 299U);
  needs.available = 650;
  EXPECT_TRUE(divided(needs).streams());
  EXPECT_EQ(divided(needs).resident, 0U) << "all entries are streamed";
}

TEST(CudaPlan, DoesNotFitWhereTheWindowDoesNot) {
  CudaPlan needs = kNeeds;
  needs.available = 349;
  EXPECT_FALSE(divided(needs).fits());
  EXPECT_EQ(divided(needs).resident, 0U);
  needs.available = 350;
  EXPECT_TRUE(divided(needs).fits());
}

class KeptPlan : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    reference::RandomModel shape = reference::gpu_model();
    shape.window = 64;
    shape.last_context = 64;
    reference::write_random_checkpoint(folder_.path(), shape, 5);
  }
  void TearDown() override { emulated_device().bytes = EmulatedDevice::kBytes; }

  Lookup lookup() const {
    Lookup result = Lookup::named(GetParam());
    result.top_k = 5;
    return result;
  }

  TemporaryFolder folder_;
  CpuExec exec_{2};
};

/// With little and with enough for what is read, and much more read than is kept on the device.
TEST_P(KeptPlan, IsWhatASessionTakes) {
  const Model model = load_model(exec_, folder_.path(), DType::bf16, {0});
  const MemorySettings settings = resolve_memory_settings(model.config, {});
  const EntryShape shape = entry_shape(model.config, settings);
  model.cuda->limits.piece = 2 * layer_bytes(shape, 64);
  EmulatedDevice& device = emulated_device();
  for (const std::size_t windows : {std::size_t{0}, std::size_t{3}, std::size_t{40}}) {
    const std::size_t before = device.used;
    Memory memory(shape, lookup());
    model.cuda->limits.bytes = CudaLimits().bytes;
    const CudaPlan needs =
        plan_session(model.cuda->exec, model.config, settings, model.precision, memory, model.cuda->limits);
    model.cuda->limits.bytes =
        needs.window + needs.workspace + needs.staging + windows * device_bytes(shape.segment_bytes(64));
    device.peak = device.used;
    {
      Session session(exec_, model, settings, lookup());
      EXPECT_NE(session.device_plan().find("streamed"), std::string::npos) << session.device_plan();
      reference::Random random(9);
      for (int window = 0; window < 5; ++window) session.read_window(random.ids(64, model.config.vocab_size));
      std::vector<float> logits(64 * model.config.vocab_size);  // as many as a pass can be asked for
      session.call(random.ids(64, model.config.vocab_size), 64, {logits.data(), {64, model.config.vocab_size}});
      for (const float logit : logits) ASSERT_TRUE(std::isfinite(logit));
      for (int step = 0; step < 4; ++step) {
        session.call(random.ids(1, model.config.vocab_size), 64, {logits.data(), {1, model.config.vocab_size}});
      }
      Sampler sampler({.temperature = 1, .repetition_penalty = 2});
      for (int step = 0; step < 4; ++step) session.next(random.ids(1, model.config.vocab_size), 64, sampler);
    }
    constexpr std::size_t kTables = 16384;  // of blocks, which are in the reserve
    EXPECT_LE(device.peak - before, model.cuda->limits.bytes + kTables) << windows << " windows resident";
  }
}

TEST_P(KeptPlan, SaysWhatDoesNotFit) {
  const Model model = load_model(exec_, folder_.path(), DType::bf16, {0});
  const MemorySettings settings = resolve_memory_settings(model.config, {});
  model.cuda->limits.bytes = 1000;
  const std::string error = input_error_of([&] { Session(exec_, model, settings, lookup()); });
  EXPECT_NE(error.find("--device cuda:0"), std::string::npos) << error;
  EXPECT_NE(error.find("a window ("), std::string::npos) << error;
  EXPECT_NE(error.find("use --device cpu"), std::string::npos) << error;
}

INSTANTIATE_TEST_SUITE_P(With, KeptPlan, ::testing::Values("dense", "exact"),
                         [](const auto& each) { return std::string(each.param); });

}  // namespace
}  // namespace memlane::testing
