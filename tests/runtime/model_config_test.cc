#include "runtime/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "tests/runtime/test_files.h"
#include "tests/temporary_folder.h"

namespace memlane {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class ModelConfigTest : public testing::Test {
 protected:
  ModelConfig read(std::string_view text) const {
    write_text(folder_.path() / "config.json", text);
    return read_model_config(folder_.path());
  }

  ModelConfig read_with(const json& changes) const {
    json config = {{"model_type", "llama"}};
    config.update(changes);
    return read(config.dump());
  }

  std::string error(std::string_view text) const {
    return input_error_of([&] { read(text); });
  }

  std::string error_with(const json& changes) const {
    return input_error_of([&] { read_with(changes); });
  }

  TemporaryFolder folder_;
};

TEST_F(ModelConfigTest, TakesTheDefaultsOfHuggingFaceForAbsentKeys) {
  for (const char* type : {"llama", "longllama"}) {
    const ModelConfig config = read_with({{"model_type", type}});
    EXPECT_EQ(config.model_type, type);
    EXPECT_EQ(config.vocab_size, 32000U);
    EXPECT_EQ(config.hidden_size, 4096U);
    EXPECT_EQ(config.intermediate_size, 11008U);
    EXPECT_EQ(config.num_layers, 32U);
    EXPECT_EQ(config.num_heads, 32U);
    EXPECT_EQ(config.num_kv_heads, 32U);
    EXPECT_EQ(config.head_dim, 128U);
    EXPECT_EQ(config.max_position_embeddings, 2048U);
    EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-6F);
    EXPECT_DOUBLE_EQ(config.rope.theta, 10000.0);
    EXPECT_FALSE(config.tie_word_embeddings);
    EXPECT_EQ(config.bos_token_id, 1);
    EXPECT_THAT(config.eos_token_ids, ElementsAre(2));
    EXPECT_THAT(config.mem_layers, IsEmpty());
    EXPECT_TRUE(config.mem_positionals);
    EXPECT_EQ(config.mem_dtype, DType::bf16);
    EXPECT_EQ(resolve_memory_settings(config, {}).last_context_length, 1024U);
  }
}

TEST_F(ModelConfigTest, ReadsTheModelsOfTheRepository) {
  const ModelConfig stories = read_model_config(source_dir() / "models/stories260K");
  EXPECT_EQ(stories.num_kv_heads, 4U);
  EXPECT_EQ(stories.head_dim, 8U);
  EXPECT_TRUE(stories.tie_word_embeddings);
  EXPECT_FLOAT_EQ(stories.rms_norm_eps, 1e-5F);

  const ModelConfig longllama = read_model_config(source_dir() / "tests/golden/longllama-f32");
  EXPECT_THAT(longllama.mem_layers, ElementsAre(1, 3));
  EXPECT_EQ(longllama.mem_dtype, DType::f32);
  const MemorySettings settings = resolve_memory_settings(longllama, {});
  EXPECT_EQ(settings.window, 32U);
  EXPECT_EQ(settings.last_context_length, 16U);
  EXPECT_FALSE(read_model_config(source_dir() / "tests/golden/longllama-no-memory-positions").mem_positionals);
}

TEST_F(ModelConfigTest, HonoursEveryKeyThatChangesTheMaths) {
  const ModelConfig config = read_with({{"hidden_size", 96},
                                        {"num_attention_heads", 6},
                                        {"num_key_value_heads", 2},
                                        {"head_dim", 20},
                                        {"rope_theta", 5e5},
                                        {"rms_norm_eps", 1e-5},
                                        {"tie_word_embeddings", true},
                                        {"bos_token_id", 7},
                                        {"eos_token_id", {8, 9}},
                                        {"mem_layers", {18, 6, 12}},
                                        {"mem_dtype", "float16"},
                                        {"mem_positionals", false},
                                        {"mem_attention_grouping", {4, 2048}},
                                        {"last_context_length", 100}});
  EXPECT_EQ(config.num_kv_heads, 2U);
  EXPECT_EQ(config.head_dim, 20U);
  EXPECT_DOUBLE_EQ(config.rope.theta, 5e5);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.bos_token_id, 7);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(8, 9));
  EXPECT_THAT(config.mem_layers, ElementsAre(6, 12, 18));
  EXPECT_EQ(config.mem_dtype, DType::f16);
  EXPECT_FALSE(config.mem_positionals);
  EXPECT_EQ(config.last_context_length, 100U);
}

TEST_F(ModelConfigTest, TakesNullForWhatHuggingFaceWritesAsNull) {
  const ModelConfig config = read_with({{"num_key_value_heads", nullptr},
                                        {"head_dim", nullptr},
                                        {"rope_scaling", nullptr},
                                        {"sliding_window", nullptr},
                                        {"bos_token_id", nullptr},
                                        {"eos_token_id", nullptr}});
  EXPECT_EQ(config.num_kv_heads, 32U);
  EXPECT_EQ(config.head_dim, 128U);
  EXPECT_EQ(config.bos_token_id, -1);
  EXPECT_THAT(config.eos_token_ids, IsEmpty());
}

TEST_F(ModelConfigTest, RefusesByNameWhatItDoesNotCompute) {
  const json refused = {{"attention_bias", true}, {"mlp_bias", true},
                        {"hidden_act", "gelu"},   {"partial_rotary_factor", 0.5},
                        {"sliding_window", 4096}, {"quantization_config", {{"quant_method", "gptq"}}},
                        {"num_local_experts", 8}, {"layer_types", {"full_attention", "sliding_attention"}},
                        {"clip_qkv", 8.0},        {"logits_scaling", 8.0},
                        {"model_type", "mistral"}};
  for (const auto& [key, value] : refused.items()) EXPECT_THAT(error_with({{key, value}}), HasSubstr(key));
  EXPECT_THAT(error_with({{"model_type", "mistral"}}), HasSubstr("found \"mistral\""));
  EXPECT_THAT(error("{}"), HasSubstr("model_type: expected \"llama\" or \"longllama\", found nothing"));
}

TEST_F(ModelConfigTest, AcceptsRefusedKeysWithTheValueThatChangesNothing) {
  read_with({{"attention_bias", false},
             {"mlp_bias", false},
             {"partial_rotary_factor", 1.0},
             {"sliding_window", nullptr},
             {"hidden_act", "swish"},
             {"pretraining_tp", 2},
             {"attention_dropout", 0.1},
             {"pruned_heads", json::object()},
             {"layer_types", {"full_attention"}}});
}

TEST_F(ModelConfigTest, NamesKeyExpectedAndFoundForEveryNumberThatIsNone) {
  const std::vector<json> wrong = {4.5,  4096.0, "4096",           -1, nullptr,
                                   1e99, true,   json::array({1}), 0,  std::uint64_t{1} << 63};
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                          "max_position_embeddings", "last_context_length"}) {
    for (const json& value : wrong) {
      EXPECT_THAT(error_with({{key, value}}),
                  AllOf(HasSubstr("config.json"), HasSubstr(key), HasSubstr("expected an integer from 1 to")))
          << value;
    }
  }
}

TEST_F(ModelConfigTest, RefusesSizesThatDoNotFitTogether) {
  EXPECT_THAT(error_with({{"num_key_value_heads", 5}}),
              HasSubstr("expected a divisor of num_attention_heads 32, found 5"));
  EXPECT_THAT(error_with({{"hidden_size", 100}}), HasSubstr("expected a multiple of num_attention_heads 32"));
  EXPECT_THAT(error_with({{"head_dim", 7}}), HasSubstr("expected an even number"));
  EXPECT_THAT(error_with({{"hidden_size", 16}}), HasSubstr("num_attention_heads"));
  EXPECT_THAT(error_with({{"bos_token_id", 32000}}), HasSubstr("bos_token_id"));
  EXPECT_THAT(error_with({{"eos_token_id", {1, "2"}}}), HasSubstr("eos_token_id"));
  for (const json& value : std::vector<json>{0, -1.0, "x", nullptr, 1e-60}) {
    EXPECT_THAT(error_with({{"rms_norm_eps", value}}), HasSubstr("rms_norm_eps")) << value;
  }
  for (const json& value : std::vector<json>{0, -1.0, "x", nullptr, 1e300}) {
    EXPECT_THAT(error_with({{"rope_theta", value}}), HasSubstr("rope_theta")) << value;
  }
}

TEST_F(ModelConfigTest, RefusesMemoryKeysOutOfRange) {
  for (const json& layers : std::vector<json>{{32}, {-1}, {1, 1}, {1.0}, {"1"}, 3, nullptr, {1e99}}) {
    EXPECT_THAT(error_with({{"mem_layers", layers}}), HasSubstr("mem_layers")) << layers;
  }
  EXPECT_THAT(error_with({{"mem_dtype", "int8"}}), HasSubstr("mem_dtype"));
  EXPECT_THAT(error_with({{"mem_positionals", 1}}), HasSubstr("expected true or false, found 1"));
  for (const json& grouping : std::vector<json>{{1}, {0, 1}, {1, 2, 3}, "x", {1, 2.0}}) {
    EXPECT_THAT(error_with({{"mem_attention_grouping", grouping}}), HasSubstr("mem_attention_grouping")) << grouping;
  }
}

TEST_F(ModelConfigTest, RefusesFilesThatAreNoJsonObject) {
  EXPECT_THAT(input_error_of([] { read_model_config("/no/such/folder"); }),
              HasSubstr("expected the folder of a model"));
  EXPECT_THAT(input_error_of([&] { read_model_config(folder_.path()); }), HasSubstr("config.json: cannot open"));
  EXPECT_THAT(error(""), HasSubstr("its end too soon at byte 0 of 0"));
  EXPECT_THAT(error(R"({"model_type": "lla)"), HasSubstr("its end too soon"));
  EXPECT_THAT(error("hello"), HasSubstr("expected JSON"));
  EXPECT_THAT(error("[1]"), HasSubstr("expected a JSON object {...}, found an array"));
  EXPECT_THAT(error("{\"a\": 1e999}"), HasSubstr("outside every range"));
  EXPECT_THAT(error(R"({"model_type": "llama", "hidden_size": 64, "hidden_size": 128})"),
              HasSubstr("key \"hidden_size\" appears twice"));
  EXPECT_THAT(error("{\"a\":" + std::string(1 << 20, '[')), HasSubstr("nested deeper"));
  EXPECT_THAT(error(std::string((16 << 20) + 1, ' ')), HasSubstr("at most 16777216 bytes"));
  EXPECT_THAT(error_with({{"model_type", "a\nb" + std::string(1000, 'x')}}), Not(HasSubstr("\n")));
}

TEST_F(ModelConfigTest, SurvivesAnyDamagedByteAndAnyTruncation) {
  const std::string text = read_text(source_dir() / "tests/golden/longllama-f32/config.json");
  std::mt19937 random(17);
  for (int i = 0; i < 600; ++i) {
    std::string damaged = text;
    if (i % 4 == 0) {
      damaged.resize(random() % text.size());
    } else {
      damaged[random() % text.size()] = static_cast<char>(random() % 256);
    }
    input_error_of([&] { resolve_memory_settings(read(damaged), {}); });
  }
}

TEST_F(ModelConfigTest, WindowOfALongllamaIsItsContext) {
  const ModelConfig config =
      read_with({{"model_type", "longllama"}, {"max_position_embeddings", 4096}, {"mem_layers", {1}}});
  EXPECT_EQ(resolve_memory_settings(config, {}).window, 4096U);
}

TEST_F(ModelConfigTest, WindowOfALlamaIsBoundedOnlyWithMemoryLayers) {
  const ModelConfig config = read_with({{"max_position_embeddings", 8192}});
  EXPECT_EQ(resolve_memory_settings(config, {}).window, 8192U);
  MemoryOverrides overrides;
  overrides.mem_layers = {3, 1};
  EXPECT_EQ(resolve_memory_settings(config, overrides).window, 2048U);
  EXPECT_THAT(resolve_memory_settings(config, overrides).mem_layers, ElementsAre(1, 3));
  overrides.window = 4096;
  EXPECT_EQ(resolve_memory_settings(config, overrides).window, 4096U);
  overrides.window = 512;
  EXPECT_EQ(resolve_memory_settings(config, overrides).last_context_length, 512U);
}

TEST_F(ModelConfigTest, AnEmptyListOfMemoryLayersTurnsTheMemoryOff) {
  const ModelConfig config = read_with({{"max_position_embeddings", 8192}, {"mem_layers", {1}}});
  MemoryOverrides overrides;
  overrides.mem_layers.emplace();
  EXPECT_THAT(resolve_memory_settings(config, overrides).mem_layers, IsEmpty());
  EXPECT_EQ(resolve_memory_settings(config, overrides).window, 8192U);
}

TEST_F(ModelConfigTest, RefusesOverridesOutOfRangeAndNamesTheFlag) {
  const ModelConfig config = read_with(json::object());
  const auto error_of = [&](const MemoryOverrides& overrides) {
    return input_error_of([&] { resolve_memory_settings(config, overrides); });
  };
  for (const std::size_t window : {0UL, 2049UL}) {
    MemoryOverrides overrides;
    overrides.window = window;
    EXPECT_THAT(error_of(overrides), HasSubstr("--window: expected 1 to 2048 tokens"));
  }
  for (const std::size_t length : {0UL, 2049UL}) {
    MemoryOverrides overrides;
    overrides.last_context_length = length;
    EXPECT_THAT(error_of(overrides), HasSubstr("--last-context-length: expected 1 to 2048"));
  }
  for (const std::vector<int>& layers : {std::vector{32}, std::vector{-1}, std::vector{2, 2}}) {
    MemoryOverrides overrides;
    overrides.mem_layers = layers;
    EXPECT_THAT(error_of(overrides), HasSubstr("--mem-layers"));
  }
}

TEST_F(ModelConfigTest, RefusesALastContextOfTheConfigThatExceedsTheWindow) {
  const ModelConfig config = read_with({{"last_context_length", 1024}});
  MemoryOverrides overrides;
  overrides.window = 512;
  EXPECT_THAT(input_error_of([&] { resolve_memory_settings(config, overrides); }),
              HasSubstr("last_context_length in config.json: expected 1 to 512 tokens (the window), found 1024"));
  overrides.last_context_length = 512;
  EXPECT_EQ(resolve_memory_settings(config, overrides).last_context_length, 512U);
}

}  // namespace
}  // namespace memlane
