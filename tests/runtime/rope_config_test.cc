// What rope_scaling and rope_parameters of a config.json mean.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "runtime/model_config.h"
#include "tests/runtime/test_files.h"
#include "tests/temporary_folder.h"

namespace memlane {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class RopeConfigTest : public testing::Test {
 protected:
  /// Heads of 4 dimensions, 2048 positions.
  ModelConfig read(const json& changes) const {
    json config = {{"model_type", "llama"}, {"hidden_size", 16}, {"num_attention_heads", 4}};
    config.update(changes);
    write_text(folder_.path() / "config.json", config.dump());
    return read_model_config(folder_.path());
  }
  RopeScaling scaling(const json& settings, const json& beside = json::object()) const {
    json changes = beside;
    changes["rope_scaling"] = settings;
    const RopeScaling found = read(changes).rope;
    changes.erase("rope_scaling");
    changes["rope_parameters"] = settings;
    EXPECT_EQ(read(changes).rope, found) << "rope_parameters mean the same";
    EXPECT_EQ(read(changes).memory_rope, found) << "the model was trained so: memory layers too";
    return found;
  }
  std::string error(const json& settings) const {
    return input_error_of([&] { read({{"rope_scaling", settings}}); });
  }
  static double attention_factor(const RopeScaling& scaling) {
    return rope_frequencies(scaling, 4, 1).attention_factor;
  }

  TemporaryFolder folder_;
};

TEST_F(RopeConfigTest, UnscaledParametersGiveTheBase) {
  EXPECT_EQ(read({{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 5e5}}}}).rope.theta, 5e5);
  EXPECT_EQ(read({{"rope_parameters", nullptr}, {"rope_theta", 7.0}}).rope.theta, 7.0);
  EXPECT_EQ(read({{"rope_scaling", json::object()}}).rope.method, RopeMethod::none);
  EXPECT_EQ(read(json::object()).rope.original_length, 2048U);
  EXPECT_EQ(scaling({{"rope_type", "linear"}, {"factor", 2}, {"rope_theta", 9.0}}, {{"rope_theta", 5e5}}).theta, 9.0);
}

TEST_F(RopeConfigTest, EveryTypeIsRead) {
  for (const auto& [type, method] :
       {std::pair("linear", RopeMethod::linear), std::pair("dynamic", RopeMethod::dynamic_ntk),
        std::pair("dynamic-ntk", RopeMethod::dynamic_ntk), std::pair("dynamic-linear", RopeMethod::dynamic_linear),
        std::pair("yarn", RopeMethod::yarn), std::pair("dynamic-yarn", RopeMethod::dynamic_yarn),
        std::pair("ntk", RopeMethod::ntk_aware), std::pair("ntk-aware", RopeMethod::ntk_aware),
        std::pair("ntk-by-parts", RopeMethod::ntk_by_parts),
        std::pair("ntk-by-parts-paper", RopeMethod::ntk_by_parts_paper), std::pair("llama3", RopeMethod::llama3)}) {
    for (const char* key : {"type", "rope_type"}) {
      EXPECT_EQ(scaling({{key, type}, {"factor", 4.0}}).method, method) << type;
    }
  }
  EXPECT_EQ(scaling({{"type", "yarn"}, {"rope_type", "yarn"}, {"factor", 4}}).method, RopeMethod::yarn);
}

TEST_F(RopeConfigTest, YarnTakesItsOddKeys) {
  const json base = {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 512}};
  const auto with = [&](const json& more) {
    json settings = base;
    settings.update(more);
    return scaling(settings);
  };
  EXPECT_EQ(with(json::object()).original_length, 512U);
  EXPECT_NEAR(attention_factor(with(json::object())), 1.138629, 1e-6);
  EXPECT_EQ(attention_factor(with({{"attention_factor", 1.5}})), 1.5);
  EXPECT_NEAR(attention_factor(with({{"attention_factor", nullptr}})), 1.138629, 1e-6);
  EXPECT_EQ(attention_factor(with({{"mscale", 1.0}, {"mscale_all_dim", 1.0}})), 1);
  EXPECT_NEAR(attention_factor(with({{"attn_factor", 2.0}})), 2 * 1.138629, 2e-6);
  EXPECT_FALSE(with({{"truncate", false}}).truncate);
  EXPECT_EQ(with({{"beta_fast", 16}, {"beta_slow", 2}}).beta_fast, 16);
  EXPECT_EQ(with({{"finetuned", true}, {"extrapolation_factor", 1}}).factor, 4);
}

TEST_F(RopeConfigTest, AnExplicitFactorWinsOverTheRatio) {
  const json beside = {{"max_position_embeddings", 8192}};
  const json yarn = {{"rope_type", "yarn"}, {"original_max_position_embeddings", 1024}};
  const auto factor = [&](json settings, const json& value) {
    settings["factor"] = value;
    return scaling(settings, beside).factor;
  };
  EXPECT_EQ(factor(yarn, 4.0), 4);
  EXPECT_EQ(factor(yarn, nullptr), 8);
  EXPECT_EQ(scaling(yarn, beside).factor, 8);
  const json dynamic_yarn = {{"type", "dynamic-yarn"}, {"original_max_position_embeddings", 1024}};
  EXPECT_EQ(factor(dynamic_yarn, 4.0), 1) << "as in the YaRN code, which starts from none";
  EXPECT_EQ(scaling({{"type", "dynamic-linear"}, {"factor", 4.0}}).factor, 1);
  json finetuned = dynamic_yarn;
  finetuned["finetuned"] = true;
  EXPECT_EQ(scaling(finetuned, beside).factor, 8);
}

TEST_F(RopeConfigTest, DynamicScalesBeyondTheModelsContext) {
  EXPECT_EQ(scaling({{"type", "dynamic"}, {"factor", 2.0}}).original_length, 2048U);
  EXPECT_EQ(scaling({{"type", "dynamic"}, {"factor", 2.0}, {"original_max_position_embeddings", 512}}).original_length,
            512U);
  const RopeScaling alpha = scaling({{"type", "dynamic"}, {"alpha", 1000.0}, {"factor", 1.0}, {"beta_fast", 32}});
  EXPECT_EQ(alpha.method, RopeMethod::ntk_aware) << "alpha is a factor that does not change";
  EXPECT_EQ(alpha.factor, 1000);
}

TEST_F(RopeConfigTest, LongropeReadsItsLists) {
  const json lists = {{"type", "su"}, {"short_factor", {1, 1.1}}, {"long_factor", {2, 30}}};
  const RopeScaling phi3 =
      scaling(lists, {{"max_position_embeddings", 131072}, {"original_max_position_embeddings", 4096}});
  EXPECT_EQ(phi3.method, RopeMethod::longrope);
  EXPECT_EQ(phi3.original_length, 4096U);
  EXPECT_EQ(phi3.factor, 32);
  EXPECT_THAT(phi3.long_factor, testing::ElementsAre(2, 30));
  EXPECT_NEAR(attention_factor(phi3), 1.190238, 1e-6);
  json wrong = lists;
  wrong["factor"] = 4;
  wrong["long_factor"] = {1, 2, 3};
  EXPECT_THAT(error(wrong), HasSubstr("rope_scaling.long_factor: expected a list of 2 numbers"));
  wrong["long_factor"] = {1, 0};
  EXPECT_THAT(error(wrong), HasSubstr("0 is none"));
  EXPECT_THAT(error(lists), HasSubstr("rope_scaling.factor")) << "no factor and no original length";
}

TEST_F(RopeConfigTest, KindsOfLayersMayDiffer) {
  const json yarn = {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 512}};
  const json plain = {{"rope_type", "default"}, {"rope_theta", 5e5}};
  const ModelConfig both = read({{"rope_parameters", {{"full_attention", yarn}, {"memory_attention", plain}}}});
  EXPECT_EQ(both.rope.method, RopeMethod::yarn);
  EXPECT_EQ(both.memory_rope.method, RopeMethod::none);
  EXPECT_EQ(both.memory_rope.theta, 5e5);
  const ModelConfig one = read({{"rope_parameters", {{"full_attention", yarn}}}});
  EXPECT_EQ(one.memory_rope, one.rope);
  const auto nested_error = [&](const json& settings) {
    return input_error_of([&] { read({{"rope_parameters", settings}}); });
  };
  EXPECT_THAT(nested_error({{"memory_attention", yarn}}), HasSubstr("rope_parameters.full_attention: expected"));
  EXPECT_THAT(nested_error({{"full_attention", yarn}, {"sliding_attention", yarn}}), HasSubstr("sliding_attention"));
  EXPECT_THAT(nested_error({{"full_attention", {{"rope_type", "x"}}}}), HasSubstr("rope_parameters.full_attention."));
}

TEST_F(RopeConfigTest, BothOldAndNewKeysMustAgree) {
  const json yarn = {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 512}};
  EXPECT_EQ(read({{"rope_scaling", yarn}, {"rope_parameters", yarn}}).rope.factor, 4);
  json other = yarn;
  other["factor"] = 2.0;
  EXPECT_THAT(input_error_of([&] {
                read({{"rope_scaling", yarn}, {"rope_parameters", other}});
              }),
              HasSubstr("rope_parameters: expected the same as rope_scaling says"));
}

TEST_F(RopeConfigTest, UnknownTypesAndKeysAreNamed) {
  EXPECT_THAT(error({{"rope_type", "deepseek_yarn"}, {"factor", 4}}), HasSubstr("rope_scaling.rope_type \"deepseek"));
  EXPECT_THAT(error({{"type", "mrope"}}), HasSubstr("rope_scaling.type \"mrope\" is not supported; expected one of"));
  EXPECT_THAT(error({{"type", 3}}), HasSubstr("rope_scaling.type"));
  EXPECT_THAT(error({{"type", "linear"}, {"rope_type", "yarn"}, {"factor", 4}}), HasSubstr("rope_scaling.type"));
  EXPECT_THAT(error({{"factor", 2.0}}), HasSubstr("rope_scaling.\"factor\" 2.0 is not supported"));
  EXPECT_THAT(error({{"type", "linear"}, {"factor", 2}, {"beta_fast", 3}}), HasSubstr("\"beta_fast\" 3"));
  EXPECT_THAT(error({{"type", "yarn"}, {"factor", 2}, {"mscle", 3}}), HasSubstr("\"mscle\""));
  EXPECT_THAT(error({{"type", "yarn"}, {"factor", 2}, {"partial_rotary_factor", 0.5}}), HasSubstr("partial_rotary"));
  EXPECT_THAT(error("yarn"), HasSubstr("rope_scaling: expected an object or null, found \"yarn\""));
}

TEST_F(RopeConfigTest, NumbersOutsideTheirRangeAreNamed) {
  for (const json& value : std::vector<json>{0, -1, 0.5, "4", true, 1e300, json::array()}) {
    EXPECT_THAT(error({{"type", "linear"}, {"factor", value}}), HasSubstr("rope_scaling.factor: expected")) << value;
    EXPECT_THAT(error({{"type", "dynamic"}, {"factor", 1}, {"alpha", value}}), HasSubstr("rope_scaling.alpha"))
        << value;
  }
  EXPECT_THAT(error({{"type", "linear"}}),
              HasSubstr("rope_scaling.factor: expected a number from 1 to 1e+06, found no"));
  const auto yarn = [&](const char* key, const json& value) {
    return error({{"type", "yarn"}, {"factor", 4}, {key, value}});
  };
  for (const char* key : {"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attn_factor"}) {
    for (const json& value : std::vector<json>{-1, "1", 1e9}) EXPECT_THAT(yarn(key, value), HasSubstr(key)) << value;
  }
  EXPECT_THAT(yarn("truncate", 1), HasSubstr("truncate"));
  EXPECT_THAT(yarn("extrapolation_factor", 0.5), HasSubstr("extrapolation_factor: expected 1"));
  EXPECT_THAT(yarn("original_max_position_embeddings", 0), HasSubstr("original_max_position_embeddings"));
  EXPECT_THAT(yarn("original_max_position_embeddings", 1.5), HasSubstr("original_max_position_embeddings"));
  EXPECT_THAT(yarn("beta_slow", 40), HasSubstr("rope_scaling: beta_fast: expected a number above beta_slow"));
  EXPECT_THAT(yarn("rope_theta", 0), HasSubstr("rope_theta"));
}

TEST_F(RopeConfigTest, FlagsScaleEachKindOfLayers) {
  const ModelConfig config = read({{"mem_layers", {1}}, {"rope_theta", 5e5}});
  MemoryOverrides overrides;
  overrides.rope = "yarn";
  overrides.window = 8192;
  const MemorySettings settings = resolve_memory_settings(config, overrides);
  EXPECT_EQ(settings.rope.factor, 4) << "from the window";
  EXPECT_EQ(settings.rope.theta, 5e5);
  EXPECT_EQ(settings.memory_rope, config.memory_rope);
  overrides.memory_rope = "linear:factor=2";
  EXPECT_EQ(resolve_memory_settings(config, overrides).memory_rope.method, RopeMethod::linear);
  overrides.rope = "longrope:factor=2:short-factor=1:long-factor=1";
  EXPECT_THAT(input_error_of([&] { resolve_memory_settings(config, overrides); }), HasSubstr("short_factor"));
}

TEST_F(RopeConfigTest, OnlyWhoSaysHowToRotateMayGoBeyondTheModelsContext) {
  const ModelConfig config = read(json::object());
  MemoryOverrides overrides;
  overrides.window = 2049;
  EXPECT_THAT(input_error_of([&] { resolve_memory_settings(config, overrides); }),
              HasSubstr("--window: expected 1 to"));
  overrides.memory_rope = "none";
  EXPECT_THAT(input_error_of([&] { resolve_memory_settings(config, overrides); }),
              HasSubstr("--window: expected 1 to"));
  overrides.memory_rope.reset();
  overrides.rope = "none";
  EXPECT_EQ(resolve_memory_settings(config, overrides).window, 2049U);
  overrides.memory_rope = "none";
  EXPECT_THAT(input_error_of([&] { resolve_memory_settings(config, overrides); }),
              HasSubstr("--memory-rope none: expected memory layers"));
  overrides.memory_rope.reset();
  overrides.window = 0;
  EXPECT_THAT(input_error_of([&] { resolve_memory_settings(config, overrides); }),
              HasSubstr("--window: expected 1 to"));
}

}  // namespace
}  // namespace memlane
