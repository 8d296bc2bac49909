// Scaled rotations in the decoder against the reference decoder in double precision, where a memory key is a key at
// position 0, attention factor included.

#include "tests/golden_case.h"
#include "tests/reference/random_checkpoint.h"
#include "tests/reference/reference_model.h"
#include "tests/temporary_folder.h"

namespace memlane::testing {
namespace {

struct Scaled {
  std::string rope, memory_rope;
};

class DecoderRope : public ::testing::Test {
 protected:
  DecoderRope() { reference::write_random_checkpoint(folder_.path(), {}, 91); }

  MemorySettings settings(const Scaled& scaled, std::size_t window = 20) const {
    MemoryOverrides overrides;
    overrides.window = window;
    overrides.rope = scaled.rope;
    overrides.memory_rope = scaled.memory_rope;
    return resolve_memory_settings(read_model_config(folder_.path()), overrides);
  }

  /// The largest difference from the reference over calls with prefixes, overflows and single steps.
  double error(const MemorySettings& settings, std::size_t top_k = 0) const {
    CpuExec exec(2);
    const Model model = load_model(exec, folder_.path(), DType::f32);
    Lookup lookup;
    if (top_k > 0) lookup = Lookup::named("exact");
    if (top_k > 0) lookup.top_k = top_k;
    Session session(exec, model, settings, lookup);
    reference::ReferenceModel truth(folder_.path(), settings, DType::f32);
    reference::Random random(5);
    double worst = 0;
    for (const std::size_t tokens : {50, 1, 1, 9, 18, 30, 1}) {
      const auto ids = random.ids(tokens, model.config.vocab_size);
      const auto found = call_for_logits(session, model, ids, settings.last_context_length);
      std::vector<float> expected;
      for (const auto& row : truth.call(ids, settings.last_context_length, top_k)) {
        for (const double x : row) expected.push_back(static_cast<float>(x));
      }
      worst = reference::worse(worst, max_difference(found, expected));
    }
    return worst;
  }

  TemporaryFolder folder_;
};

TEST_F(DecoderRope, ScaledLayersOfBothKindsEqualTheReference) {
  const std::string lists = ":short-factor=1,1.1,1.2,1.3,1.4:long-factor=2,3,4,5,6";
  for (const Scaled& scaled :
       {Scaled{"yarn:factor=2", "none"}, Scaled{"none", "yarn:factor=4"}, Scaled{"yarn:factor=2", "yarn:factor=8"},
        Scaled{"linear:factor=3", "ntk-aware:factor=2:attention-factor=1.7"},
        Scaled{"dynamic-ntk:factor=2", "dynamic-yarn"}, Scaled{"llama3:factor=4", "longrope:factor=4" + lists}}) {
    EXPECT_LE(error(settings(scaled)), 3e-5) << scaled.rope << " " << scaled.memory_rope;
  }
}

TEST_F(DecoderRope, ExactLookupSeesScoresWithTheAttentionFactor) {
  EXPECT_LE(error(settings({"none", "yarn:factor=16"}), 3), 3e-5);
}

TEST_F(DecoderRope, EverySettingChangesTheLogits) {
  CpuExec exec(1);
  const Model model = load_model(exec, folder_.path(), DType::f32);
  reference::Random random(5);
  const auto ids = random.ids(50, model.config.vocab_size);
  std::vector<std::vector<float>> seen;
  for (const Scaled& scaled :
       {Scaled{"none", "none"}, Scaled{"yarn:factor=2", "none"}, Scaled{"none", "yarn:factor=2"},
        Scaled{"none", "ntk-by-parts:factor=2"}, Scaled{"none:attention-factor=1.2", "none"},
        Scaled{"none", "none:attention-factor=1.2"}, Scaled{"base:theta=900", "none"}, Scaled{"dynamic-ntk", "none"}}) {
    Session session(exec, model, settings(scaled), Lookup{});
    seen.push_back(call_for_logits(session, model, ids, 5));
    for (std::size_t i = 0; i + 1 < seen.size(); ++i) EXPECT_GT(max_difference(seen[i], seen.back()), 1e-3) << i;
  }
}

TEST_F(DecoderRope, WithoutMemoryPositionsMemoryLayersHaveNoAttentionFactor) {
  reference::write_random_checkpoint(folder_.path(), {.mem_positionals = false}, 91);
  EXPECT_LE(error(settings({"yarn:factor=2", "yarn:factor=8"})), 3e-5);
}

}  // namespace
}  // namespace memlane::testing
