// Models with quantised weights: how near they are to float32, and that decoding gives the bits of prefill.

#include <cstring>

#include "tests/golden_case.h"
#include "tests/reference/random_checkpoint.h"
#include "tests/reference/random_values.h"
#include "tests/temporary_folder.h"

namespace memlane::testing {
namespace {

struct Held {
  WeightFormat format;
  double rms;  ///< that logits may differ from float32's, of the logits' own rms
};
constexpr Held kHeld[] = {{WeightFormat::int8, 0.02}, {WeightFormat::int4, 0.2}};

double rms(std::span<const float> a) {
  double squares = 0;
  for (const float x : a) squares += static_cast<double>(x) * static_cast<double>(x);
  return std::sqrt(squares / static_cast<double>(a.size()));
}

std::vector<float> stories_logits(WeightFormat format, InstructionSet set, bool one_by_one) {
  CpuExec exec(2, set);
  const Model model = load_model(exec, stories260k_folder(), Precision(DType::f32, format));
  MemoryOverrides overrides;
  overrides.mem_layers = std::vector<int>{2, 3};
  const MemorySettings settings = resolve_memory_settings(model.config, overrides);
  Session session(exec, model, settings, Lookup{});
  const std::vector<std::int32_t> ids = reference::Random(5).ids(48, model.config.vocab_size);
  if (!one_by_one) return call_for_logits(session, model, ids, settings.last_context_length);
  std::vector<float> all;
  for (const std::int32_t id : ids) {
    const std::vector<float> row = call_for_logits(session, model, std::span(&id, 1), settings.last_context_length);
    all.insert(all.end(), row.begin(), row.end());
  }
  return all;
}

TEST(QuantisedModel, HasLogitsNearThoseOfFloat32) {
  const std::vector<float> exact = stories_logits(WeightFormat::f32, detect_instruction_set(), false);
  for (const auto& [format, allowed] : kHeld) {
    std::vector<float> found = stories_logits(format, detect_instruction_set(), false);
    for (std::size_t i = 0; i < found.size(); ++i) found[i] -= exact[i];
    EXPECT_LE(rms(found), allowed * rms(exact)) << name_of(format);
    EXPECT_GT(rms(found), 0) << name_of(format);
    RecordProperty(std::string(name_of(format)), fmt::format("{:.3g} of {:.3g}", rms(found), rms(exact)));
  }
}

TEST(QuantisedModel, DecodesWithTheBitsOfPrefillOnEveryInstructionSet) {
  for (int set = 0; set <= static_cast<int>(detect_instruction_set()); ++set) {
    for (const Held& held : kHeld) {
      const auto which = static_cast<InstructionSet>(set);
      const std::vector<float> together = stories_logits(held.format, which, false);
      const std::vector<float> alone = stories_logits(held.format, which, true);
      ASSERT_EQ(together.size(), alone.size());
      EXPECT_EQ(std::memcmp(together.data(), alone.data(), together.size() * sizeof(float)), 0)
          << name_of(which) << ' ' << name_of(held.format);
    }
  }
}

TEST(QuantisedModel, TakesTheBytesThatAreCounted) {
  CpuExec exec(1);
  const Model model = load_model(exec, stories260k_folder(), Precision(DType::f32, WeightFormat::int4));
  std::size_t bytes = model.weights.head.bytes() + model.weights.final_norm.bytes();
  for (const LayerWeights& layer : model.weights.layers) {
    bytes += layer.attention_norm.bytes() + layer.mlp_norm.bytes();
    for (const PackedMatrix* w : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      EXPECT_EQ(w->format(), WeightFormat::int4);
      bytes += w->bytes();
    }
  }
  EXPECT_EQ(bytes, weight_bytes(model.config, WeightFormat::int4));
}

TEST(QuantisedModel, NamesTheTensorThatIsNotFinite) {
  const TemporaryFolder folder;
  reference::write_random_checkpoint(folder.path(), {}, 3);
  const SafetensorsFile whole(folder.path() / "model.safetensors");
  std::list<std::vector<float>> values;
  std::vector<OutputTensor> tensors;
  for (const auto& [name, tensor] : whole.tensors()) {
    values.push_back(whole.floats(name));
    if (name == "model.layers.1.mlp.up_proj.weight") values.back()[5] = INFINITY;
    tensors.push_back({name, tensor.shape, std::span<const float>(values.back())});
  }
  const TemporaryFolder spoiled;
  std::filesystem::copy(folder.path() / "config.json", spoiled.path() / "config.json");
  write_safetensors(spoiled.path() / "model.safetensors", tensors);
  CpuExec exec(1);
  try {
    load_model(exec, spoiled.path(), Precision(DType::f32, WeightFormat::int8));
    FAIL() << "loaded";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("model.layers.1.mlp.up_proj.weight"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("int8"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace memlane::testing
