// The decoder against logits that transformers gives for each of its RoPE types, on texts longer than the original
// length (tests/golden/transformers-rope).

#include <nlohmann/json.hpp>

#include "tests/golden_case.h"
#include "tests/runtime/test_files.h"
#include "tests/temporary_folder.h"

namespace memlane::testing {
namespace {

using nlohmann::json;

TEST(TransformersRope, EveryTypeGivesTheLogitsOfTransformers) {
  const std::filesystem::path golden = golden_folder("transformers-rope");
  const json cases = json::parse(read_text(golden / "cases.json"));
  const SafetensorsFile expected(golden / "expected.safetensors");
  ASSERT_GE(cases.size(), 18U);
  CpuExec exec(1);
  for (const auto& [name, config] : cases.items()) {
    SCOPED_TRACE(name);
    const TemporaryFolder folder;
    write_text(folder.path() / "config.json", config.dump());
    std::filesystem::copy(golden / "model.safetensors", folder.path() / "model.safetensors");
    const Model model = load_model(exec, folder.path(), DType::f32);
    const std::vector<std::int32_t> ids = expected.integers(name + ".input_ids");
    const auto logits = expected.floats(name + ".logits");
    MemoryOverrides overrides;
    overrides.window = overrides.last_context_length = ids.size();
    overrides.rope = to_text(model.config.rope);  // some texts are longer than max_position_embeddings
    Session session(exec, model, resolve_memory_settings(model.config, overrides), Lookup{});
    std::vector<float> found(logits.size());
    const std::size_t vocab = model.config.vocab_size;
    session.call(ids, ids.size(), {found.data(), {logits.size() / vocab, vocab}});
    EXPECT_LE(max_difference(found, logits), 1e-4);
    ::testing::Test::RecordProperty(name, fmt::format("{:.3g}", max_difference(found, logits)));
  }
}

}  // namespace
}  // namespace memlane::testing
