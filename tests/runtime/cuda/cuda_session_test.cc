// Sessions on the GPU against sessions on the CPU: the same model, the same calls, bfloat16 on both.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "runtime/cuda/cuda_model.h"
#include "runtime/session.h"
#include "tests/golden_case.h"
#include "tests/reference/random_checkpoint.h"
#include "tests/reference/random_values.h"
#include "tests/temporary_folder.h"

namespace memlane::testing {
namespace {

struct Way {
  std::string name;
  MemoryOverrides overrides = {};
  Lookup lookup = {};
};

/// The ways of the CPU's own tests that differ in what they ask of kernels.
std::vector<Way> ways() {
  std::vector<Way> all;
  const auto add = [&](const std::string& name, const auto& change) {
    Way way{name};
    change(way);
    all.push_back(way);
  };
  add("Dense", [](Way&) {});
  add("Exact", [](Way& way) {
    way.lookup = Lookup::named("exact");
    way.lookup.top_k = 5;
  });
  add("NoMemory", [](Way& way) { way.overrides.mem_layers = std::vector<int>{}; });
  add("SlidingWindow", [](Way& way) {
    way.overrides.sliding_window = 9;
    way.overrides.sinks = 2;
  });
  add("CappedDistance", [](Way& way) { way.overrides.capped_distance = 6; });
  add("Overlap", [](Way& way) { way.overrides.overlap = 4; });
  add("FrequenciesThatFollowTheLength", [](Way& way) {
    way.overrides.rope = "dynamic-ntk:factor=2";
    way.overrides.memory_rope = "yarn:factor=4";
    way.overrides.window = 20;
    way.overrides.memory_window = 12;
  });
  add("SubWindows", [](Way& way) { way.overrides.memory_window = 5; });
  return all;
}

class CudaSession : public ::testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "this machine has no GPU that CUDA can use";
    reference::RandomModel shape = reference::gpu_model();
    reference::write_random_checkpoint(folder_.path(), shape, 5);
  }

  /// Two documents, each read on a device.
  std::vector<std::unique_ptr<DocumentMemory>> read_documents(const Model& model, const MemorySettings& settings) {
    reference::Random random(4);
    std::vector<std::unique_ptr<DocumentMemory>> documents;
    for (int document = 0; document < 2 && !settings.mem_layers.empty(); ++document) {
      Session reader(exec_, model, settings, GetParam().lookup);
      const EntryShape shape = entry_shape(model.config, settings);
      documents.push_back(std::make_unique<DocumentMemory>(shape, GetParam().lookup));
      for (int window = 0; window < 6; ++window) {
        const auto ids = random.ids(reader.next_window() - (window == 5 ? 1 : 0), model.config.vocab_size);
        for (const Segment& segment : reader.read_window(ids)) {
          Buffer<std::byte> bytes(segment.bytes().size());
          std::copy(segment.bytes().begin(), segment.bytes().end(), bytes.data());
          documents.back()->append(Segment(shape, segment.count(), std::move(bytes)));
        }
      }
    }
    return documents;
  }

  /// Logits of the last token of several calls, with two documents in memory. limits: on a GPU.
  std::vector<std::vector<float>> logits(DeviceChoice device, const CudaLimits& limits = {}) {
    const Model model = load_model(exec_, folder_.path(), DType::bf16, device);
    if (model.cuda != nullptr) model.cuda->limits = limits;
    return logits(model, std::vector<std::size_t>{30, 1, 1, 7, 26, 1, 1, 1});
  }

  /// calls: tokens of each.
  std::vector<std::vector<float>> logits(const Model& model, const std::vector<std::size_t>& calls) {
    const MemorySettings settings = resolve_memory_settings(model.config, GetParam().overrides);
    const auto documents = read_documents(model, settings);
    std::vector<const DocumentMemory*> seen;
    for (const auto& document : documents) seen.push_back(document.get());
    Session session(exec_, model, settings, GetParam().lookup, seen);
    reference::Random random(9);
    std::vector<std::vector<float>> all;
    for (const std::size_t tokens : calls) {
      const auto ids = random.ids(tokens, model.config.vocab_size);
      std::vector<float> row(model.config.vocab_size, NAN);
      session.call(ids, settings.last_context_length, {row.data(), {1, row.size()}});
      all.push_back(row);
    }
    return all;
  }

  TemporaryFolder folder_;
  CpuExec exec_{2};
};

TEST_P(CudaSession, SaysWhatTheCpuSays) {
  const auto expected = logits({});
  const auto found = logits({0});
  for (std::size_t call = 0; call < expected.size(); ++call) {
    double error = 0, magnitude = 0;
    for (std::size_t i = 0; i < expected[call].size(); ++i) {
      error += std::pow(found[call][i] - expected[call][i], 2);
      magnitude += std::pow(expected[call][i], 2);
    }
    // Both round to bfloat16, not alike; where few entries are chosen, near ties may go the other way.
    EXPECT_LE(std::sqrt(error / magnitude), GetParam().lookup.kind == Lookup::Kind::exact ? 0.06 : 0.02)
        << "call " << call;
  }
}

TEST_P(CudaSession, SaysTheSameToTheBitWithEntriesOnTheHost) {
  CudaLimits limits{.piece = 1};  // a window at a time
  const auto resident = logits({0}, limits);
  const Model model = load_model(exec_, folder_.path(), DType::bf16, {0});
  const MemorySettings settings = resolve_memory_settings(model.config, GetParam().overrides);
  const Memory memory(entry_shape(model.config, settings), GetParam().lookup);
  const CudaPlan needs = plan_session(model.cuda->exec, model.config, settings, model.precision, memory, limits);
  limits.bytes = needs.window + needs.workspace + needs.staging;  // no room for a single entry
  EXPECT_EQ(logits({0}, limits), resident);
}

/// Over ends of windows, and among calls of several tokens.
TEST_P(CudaSession, SaysTheSameToTheBitWithStepsAsGraphs) {
  std::vector<std::size_t> calls = {30, 1, 1, 1, 1, 7, 1, 1, 1, 1, 1};
  calls.insert(calls.end(), 30, 1);
  const Model model = load_model(exec_, folder_.path(), DType::bf16, {0});
  model.cuda->graphs = false;
  const auto one_by_one = logits(model, calls);
  EXPECT_EQ(model.cuda->steps.rehearsed, 0U);
  model.cuda->graphs = true;
  EXPECT_EQ(logits(model, calls), one_by_one);
  const StepCounts& steps = model.cuda->steps;
  EXPECT_EQ(steps.refusal, "");
  if (GetParam().name == "FrequenciesThatFollowTheLength") {
    EXPECT_EQ(steps.rehearsed, 0U) << "every step has other tables";
    return;
  }
  EXPECT_EQ(steps.rehearsed + steps.replayed, 39U);
  EXPECT_GE(steps.replayed, 20U);
  EXPECT_LE(steps.recorded, 12U);
}

INSTANTIATE_TEST_SUITE_P(Ways, CudaSession, ::testing::ValuesIn(ways()),
                         [](const auto& each) { return each.param.name; });

/// A graph that was made before a call of many tokens, before another session, or before a memory grew, is not used.
TEST(CudaSteps, AreRecordedAgainWhenWhatTheyWereGivenIsGone) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "this machine has no GPU that CUDA can use";
  TemporaryFolder folder;
  reference::RandomModel shape = reference::gpu_model();
  shape.window = shape.last_context = 40;
  reference::write_random_checkpoint(folder.path(), shape, 5);
  CpuExec exec(2);
  const Model model = load_model(exec, folder.path(), DType::bf16, {0});
  const MemorySettings settings = resolve_memory_settings(model.config, {});
  const auto logits = [&](bool graphs) {
    model.cuda->graphs = graphs;
    std::vector<std::vector<float>> all;
    Session first(exec, model, settings, Lookup{}), second(exec, model, settings, Lookup{});
    reference::Random random(3);
    const auto call = [&](Session& session, std::size_t tokens) {
      std::vector<float> row(model.config.vocab_size, NAN);
      session.call(random.ids(tokens, model.config.vocab_size), 20, {row.data(), {1, row.size()}});
      all.push_back(row);
    };
    for (const std::size_t tokens : {1, 1, 1, 1, 5, 1, 1, 1, 90, 1, 1, 1, 1}) {
      call(first, tokens);
      call(second, 1);
    }
    for (int i = 0; i < 4; ++i) call(first, 1);
    return all;
  };
  const auto one_by_one = logits(false);
  EXPECT_EQ(logits(true), one_by_one);
  EXPECT_GT(model.cuda->steps.replayed, 0U);
  EXPECT_GT(model.cuda->steps.recorded, 1U);
  EXPECT_EQ(model.cuda->steps.refusal, "");
}

/// How far logits are from others, relative to these.
double distance(const std::vector<float>& found, const std::vector<float>& expected) {
  double error = 0, magnitude = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    error += std::pow(found[i] - expected[i], 2);
    magnitude += std::pow(expected[i], 2);
  }
  return std::sqrt(error / magnitude);
}

/// The weights are the same on both, but the CPU rounds the inputs of products to int8 too, the GPU to bfloat16 alone:
/// of what the model says without quantisation it loses no more.
TEST(CudaQuantisedModel, LosesNoMoreThanTheCpuDoes) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "this machine has no GPU that CUDA can use";
  TemporaryFolder folder;
  reference::RandomModel shape = reference::gpu_model();
  shape.intermediate = 296;
  shape.window = 40;
  shape.last_context = 40;
  reference::write_random_checkpoint(folder.path(), shape, 5);
  CpuExec exec(2);
  const auto logits = [&](Precision precision, DeviceChoice device) {
    const Model model = load_model(exec, folder.path(), precision, device);
    const MemorySettings settings = resolve_memory_settings(model.config, {});
    Session session(exec, model, settings, Lookup{});
    reference::Random random(2);
    std::vector<float> all;
    for (const std::size_t tokens : {70, 1, 2}) {  // many rows and few
      std::vector<float> row(model.config.vocab_size, NAN);
      session.call(random.ids(tokens, model.config.vocab_size), 30, {row.data(), {1, row.size()}});
      all.insert(all.end(), row.begin(), row.end());
    }
    return all;
  };
  const std::vector<float> whole = logits(DType::f32, {});
  for (const WeightFormat format : {WeightFormat::int8, WeightFormat::int4}) {
    const std::vector<float> cpu = logits({DType::bf16, format}, {}), gpu = logits({DType::bf16, format}, {0});
    EXPECT_LE(distance(gpu, whole), 1.05 * distance(cpu, whole)) << name_of(format);
    EXPECT_LE(distance(gpu, cpu), 0.12) << name_of(format);
  }
}

/// Recorded outputs of LongLLaMA's own code, within what bfloat16 weights and products leave of them.
TEST(CudaGolden, ReproducesLongLlamaWithinBFloat16) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "this machine has no GPU that CUDA can use";
  CpuExec exec(2);
  const Model model = load_model(exec, golden_folder("longllama-bf16-memory"), DType::bf16, {0});
  const MemorySettings settings = resolve_memory_settings(model.config, {});
  const SafetensorsFile expected(golden_folder("longllama-bf16-memory") / "expected.safetensors");
  std::size_t cases = 0;
  for (const auto& [name, tensor] : expected.tensors()) {
    if (!name.starts_with("prefill_") || !name.ends_with(".input_ids")) continue;
    const std::string prefix = name.substr(0, name.find('.'));
    const std::vector<float> truth = expected.floats(prefix + ".logits");
    Session session(exec, model, settings, Lookup{});
    const auto found = call_for_logits(session, model, expected.integers(name), settings.last_context_length);
    ASSERT_EQ(found.size(), truth.size());
    double error = 0, magnitude = 0;
    for (std::size_t i = 0; i < truth.size(); ++i) {
      error += std::pow(found[i] - truth[i], 2);
      magnitude += std::pow(truth[i], 2);
    }
    EXPECT_LE(std::sqrt(error / magnitude), 0.03) << prefix;
    ++cases;
  }
  EXPECT_GT(cases, 0U);
}

}  // namespace
}  // namespace memlane::testing
