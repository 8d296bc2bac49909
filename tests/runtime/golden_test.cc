// The decoder against outputs recorded from the public PyTorch implementation of LongLLaMA (tests/golden/README.md).

#include "tests/golden_case.h"

namespace memlane::testing {
namespace {

struct Golden {
  std::string name;
  double logit_tolerance;
  InstructionSet set;
};

std::vector<Golden> cases() {
  std::vector<Golden> all;
  for (int set = 0; set <= static_cast<int>(detect_instruction_set()); ++set) {
    const auto instruction_set = static_cast<InstructionSet>(set);
    all.push_back({"longllama-f32", 1e-4, instruction_set});
    all.push_back({"longllama-bf16-memory", 2e-3, instruction_set});
    all.push_back({"longllama-no-memory-positions", 1e-4, instruction_set});
    all.push_back({"llama-no-memory", 1e-4, instruction_set});
  }
  return all;
}

class GoldenData : public ::testing::TestWithParam<Golden> {
 protected:
  GoldenData()
      : exec_(2, GetParam().set),
        model_(load_model(exec_, golden_folder(GetParam().name), DType::f32)),
        settings_(resolve_memory_settings(model_.config, {})),
        expected_(golden_folder(GetParam().name) / "expected.safetensors") {}

  Session new_session() { return {exec_, model_, settings_, Lookup{}}; }

  /// Names "prefill_N" of the recorded cases.
  std::vector<std::string> lengths() const {
    std::vector<std::string> found;
    for (const auto& [name, tensor] : expected_.tensors()) {
      if (name.starts_with("prefill_") && name.ends_with(".input_ids"))
        found.push_back(name.substr(8, name.find('.') - 8));
    }
    EXPECT_FALSE(found.empty());
    return found;
  }

  void expect_memory(Session& session, const std::string& prefix) {
    for (std::size_t slot = 0; slot < settings_.mem_layers.size(); ++slot) {
      const std::string layer = prefix + ".memory." + std::to_string(settings_.mem_layers[slot]);
      if (expected_.find(layer + ".keys") == nullptr) {
        EXPECT_EQ(session.own_memory().entries(), 0U);
        continue;
      }
      expect_entries(session.own_memory(), slot, expected_.floats(layer + ".keys"),
                     expected_.floats(layer + ".values"));
    }
  }

  /// keys, values: [heads, entries, head_dim].
  void expect_entries(const DocumentMemory& memory, std::size_t slot, std::span<const float> keys,
                      std::span<const float> values) {
    const std::size_t d = model_.config.head_dim;
    ASSERT_EQ(memory.entries() * model_.config.num_kv_heads * d, keys.size());
    std::size_t at = 0;
    for (std::size_t head = 0; head < model_.config.num_kv_heads; ++head) {
      for (const Segment& segment : memory.segments()) {
        const EntryBlock block = segment.block(slot, head);
        std::vector<float> key(d);
        for (std::size_t i = 0; i < block.count; ++i, at += d) {
          read_key(block, i, d, key.data());
          for (std::size_t j = 0; j < d; ++j) {
            EXPECT_LE(error_in_tolerances(key[j], keys[at + j], slot), 1.0) << "key " << i << " of head " << head;
            EXPECT_LE(error_in_tolerances(value(block, i * d + j), values[at + j], slot), 1.0)
                << "value " << i << " of head " << head;
          }
        }
      }
    }
  }

  static float value(const EntryBlock& block, std::size_t index) {
    return with_type(block.dtype,
                     [&](auto type) { return to_float(static_cast<const decltype(type)*>(block.values)[index]); });
  }

  /// 1e-5 for float32 memory, one unit in the last place for bfloat16 memory. Elements near zero are sums of much
  /// larger terms, whose error may be several of their own units: 1e-5 from float32 arithmetic and, above the first
  /// memory layer, 1e-4 from entries below that were rounded the other way.
  double error_in_tolerances(float found, float expected, std::size_t slot) const {
    const double error = std::abs(static_cast<double>(found) - expected);
    if (settings_.mem_dtype == DType::f32) return error / 1e-5;
    const double ulp = std::exp2(std::floor(std::log2(std::max(std::abs(static_cast<double>(expected)), 1e-30))) - 7);
    return error / std::max(slot == 0 ? 1e-5 : 1e-4, ulp);
  }

  CpuExec exec_;
  Model model_;
  MemorySettings settings_;
  SafetensorsFile expected_;
};

TEST_P(GoldenData, PrefillGivesTheReferenceLogitsAndMemory) {
  for (const std::string& n : lengths()) {
    SCOPED_TRACE("prefill_" + n);
    Session session = new_session();
    const std::vector<std::int32_t> ids = expected_.integers("prefill_" + n + ".input_ids");
    const auto logits = call_for_logits(session, model_, ids, settings_.last_context_length);
    EXPECT_LE(max_difference(logits, expected_.floats("prefill_" + n + ".logits")), GetParam().logit_tolerance);
    expect_memory(session, "prefill_" + n);
  }
}

TEST_P(GoldenData, EveryDecodeStepGivesTheReferenceLogits) {
  for (const std::string& n : lengths()) {
    if (expected_.find("decode_" + n + ".input_ids") == nullptr) continue;
    SCOPED_TRACE("decode_" + n);
    Session session = new_session();
    session.call(expected_.integers("prefill_" + n + ".input_ids"), settings_.last_context_length, {});
    const auto ids = expected_.integers("decode_" + n + ".input_ids");
    const auto logits = expected_.floats("decode_" + n + ".logits");
    const auto lengths = expected_.integers("decode_" + n + ".local_and_memory_length");
    for (std::size_t step = 0; step < ids.size(); ++step) {
      const auto found =
          call_for_logits(session, model_, std::span(ids).subspan(step, 1), settings_.last_context_length);
      const std::size_t vocab = model_.config.vocab_size;
      EXPECT_LE(max_difference(found, std::span(logits).subspan(step * vocab, vocab)), GetParam().logit_tolerance)
          << "step " << step;
      EXPECT_EQ(session.local_length(), static_cast<std::size_t>(lengths[2 * step]));
      EXPECT_EQ(session.memory_length(), static_cast<std::size_t>(lengths[2 * step + 1]));
    }
  }
}

TEST_P(GoldenData, CallsInARowFollowTheOverflowRule) {
  const auto path = golden_folder(GetParam().name) / "expected_calls.safetensors";
  if (!std::filesystem::exists(path)) return;  // recorded for two of the models
  const SafetensorsFile calls(path);
  Session session = new_session();
  for (int call = 0; calls.find("call_" + std::to_string(call) + ".input_ids") != nullptr; ++call) {
    const std::string name = "call_" + std::to_string(call);
    SCOPED_TRACE(name);
    const auto logits =
        call_for_logits(session, model_, calls.integers(name + ".input_ids"), settings_.last_context_length);
    EXPECT_LE(max_difference(logits, calls.floats(name + ".logits")), GetParam().logit_tolerance);
    const auto lengths = calls.integers(name + ".local_and_memory_length");
    EXPECT_EQ(session.local_length(), static_cast<std::size_t>(lengths[0]));
    EXPECT_EQ(session.memory_length(), static_cast<std::size_t>(lengths[1]));
  }
}

INSTANTIATE_TEST_SUITE_P(Reference, GoldenData, ::testing::ValuesIn(cases()), [](const auto& each) {
  std::string name = each.param.name + "_" + name_of(each.param.set);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace memlane::testing
