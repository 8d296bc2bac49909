#include "runtime/method.h"

#include <gmock/gmock.h>

#include "runtime/rope_scaling.h"
#include "tests/runtime/test_files.h"

namespace memlane::testing {
namespace {

using ::testing::HasSubstr;

/// A model trained on 2048 tokens with memory layers and windows of 512.
class Methods : public ::testing::Test {
 protected:
  Methods() {
    config_.head_dim = 64;
    config_.max_position_embeddings = 2048;
    config_.rope.theta = 500000;
    config_.rope.original_length = 2048;
    config_.memory_rope = config_.rope;
    base_.mem_layers = {2, 3};
    base_.window = 512;
    base_.last_context_length = 100;
    base_.memory_window = 512;
    base_.rope = config_.rope;
    base_.memory_rope = config_.memory_rope;
  }
  MethodSettings settings(const char* text, std::size_t length = 8192, std::size_t room = 0) const {
    return Method::parse(text).settings(config_, base_, length, room);
  }
  std::string error(const char* text) const {
    return input_error_of([&] { settings(text); });
  }

  ModelConfig config_;
  MemorySettings base_;
};

TEST_F(Methods, MemoryAndNoneReadAsTheModelDoes) {
  const MethodSettings memory = settings("memory");
  EXPECT_EQ(memory.memory.mem_layers, base_.mem_layers);
  EXPECT_EQ(memory.memory.window, 512U);
  EXPECT_EQ(memory.memory.rope, base_.rope);
  const MethodSettings none = settings("none");
  EXPECT_TRUE(none.memory.mem_layers.empty());
  EXPECT_EQ(none.memory.window, 512U);
  EXPECT_FALSE(none.recompute);
}

TEST_F(Methods, AFullWindowHasPlaceForWhatFollows) {
  EXPECT_EQ(settings("none:window=full", 8192, 12).memory.window, 8204U);
  EXPECT_EQ(settings("yarn", 8192, 12).memory.window, 8204U);
  EXPECT_EQ(settings("memory:window=full", 8192, 0).memory.window, 8192U);
  EXPECT_EQ(settings("none:window=1000", 8192, 12).memory.window, 1000U);
  EXPECT_EQ(settings("none", 512, 12).memory.window, 512U) << "the model's own window";
  EXPECT_EQ(settings("yarn", 512, 12).memory.window, 524U);
}

TEST_F(Methods, AFactorThatIsNotSaidIsThatOfTheWindow) {
  EXPECT_EQ(settings("yarn", 8192).memory.rope.factor, 4);
  EXPECT_EQ(settings("yarn", 8192, 12).memory.rope.factor, 4) << "the room is not text";
  EXPECT_EQ(settings("linear", 1024).memory.rope.factor, 1);
  EXPECT_EQ(settings("ntk-aware:window=4096", 8192).memory.rope.factor, 2);
  EXPECT_EQ(settings("yarn:factor=16", 8192).memory.rope.factor, 16);
  EXPECT_EQ(settings("yarn:factor=auto", 16384).memory.rope.factor, 8);
  EXPECT_EQ(settings("memory+yarn", 65536).memory.rope.factor, 2) << "windows of 4096";
}

TEST_F(Methods, ScaleThePlainLayersAndLeaveMemoryLayersAlone) {
  const MemorySettings combined = settings("memory+yarn:factor=4:window=8192").memory;
  EXPECT_EQ(combined.window, 8192U);
  EXPECT_EQ(combined.mem_layers, base_.mem_layers);
  EXPECT_EQ(combined.rope.method, RopeMethod::yarn);
  EXPECT_EQ(combined.rope.theta, 500000);
  EXPECT_EQ(combined.memory_rope, base_.memory_rope);
  EXPECT_EQ(settings("memory+yarn").memory.window, 4096U);
  EXPECT_EQ(settings("memory+yarn:factor=4:memory-rope=same").memory.memory_rope.factor, 4);
  const RopeScaling own = settings("memory+yarn:factor=4:memory-rope=linear/factor=2").memory.memory_rope;
  EXPECT_EQ(own.method, RopeMethod::linear);
  EXPECT_EQ(own.factor, 2);
}

TEST_F(Methods, AFactorOfMemoryLayersThatIsNotSaidIsThatOfTheirWindow) {
  const auto factor = [&](const char* text) { return settings(text, 65536, 12).memory.memory_rope.factor; };
  EXPECT_EQ(factor("memory+yarn:window=8192:memory-rope=linear"), 1);
  EXPECT_EQ(factor("memory+yarn:window=8192:memory-window=4096:memory-rope=linear"), 2);
  EXPECT_EQ(factor("memory+yarn:window=8192:memory-window=full:memory-rope=linear"), 4);
  EXPECT_EQ(factor("memory+yarn:window=full:memory-window=full:memory-rope=linear"), 32) << "the room is not text";
}

TEST_F(Methods, HaveSemicolonsInListsBecauseCommasSeparateMethods) {
  config_.head_dim = 4;
  const RopeScaling longrope = settings("longrope:short-factor=1;1.5:long-factor=2;4:factor=2").memory.rope;
  EXPECT_EQ(longrope.short_factor, (std::vector<double>{1, 1.5}));
  EXPECT_EQ(longrope.long_factor, (std::vector<double>{2, 4}));
  EXPECT_EQ(settings("memory:memory-rope=longrope/short-factor=1;1.5/long-factor=2;4").memory.memory_rope.long_factor,
            longrope.long_factor);
  EXPECT_THAT(error("1.5:long-factor=2"), HasSubstr("separated by ';'"));
}

TEST_F(Methods, TakeEveryKeyOfTheScaling) {
  const RopeScaling yarn = settings("yarn:factor=4:attention-factor=1:beta-fast=16:truncate=false").memory.rope;
  EXPECT_EQ(yarn.attention_factor, 1);
  EXPECT_EQ(yarn.beta_fast, 16);
  EXPECT_FALSE(yarn.truncate);
  EXPECT_EQ(settings("base:theta=1000000").memory.rope.theta, 1e6);
}

TEST_F(Methods, OfDynamicLinearTakeNoFactor) {
  EXPECT_EQ(error("dynamic-linear"), "");
  EXPECT_THAT(error("dynamic-linear:factor=4"), HasSubstr("'factor', which it does not use"));
}

TEST_F(Methods, KeepTheLastContextOfADocument) {
  EXPECT_EQ(settings("memory").last_context, 0U);
  EXPECT_EQ(settings("memory:last-context=300").last_context, 300U);
  EXPECT_THAT(error("memory:last-context=512"), HasSubstr("last-context: expected a whole number from 0 to 511"));
}

TEST_F(Methods, OfOneFamilyDifferInTheirModeAlone) {
  const Method unsaid = Method::parse("dynamic-ntk:window=4096");
  const Method recompute = Method::parse("dynamic-ntk:window=4096:mode=recompute");
  EXPECT_EQ(unsaid.family(), recompute.family());
  EXPECT_EQ(unsaid.mode(), "");
  EXPECT_FALSE(unsaid.settings(config_, base_, 4096).recompute);
  EXPECT_TRUE(recompute.settings(config_, base_, 4096).recompute);
  EXPECT_NE(unsaid.family(), Method::parse("dynamic-ntk").family());
}

TEST_F(Methods, SayHowLayersLookAtTheirLocalContext) {
  EXPECT_EQ(settings("memory").memory.memory_window, 512U);
  EXPECT_EQ(settings("yarn").memory.memory_window, 8192U) << "no memory layers: one window";
  EXPECT_EQ(settings("memory+yarn:window=8192").memory.memory_window, 2048U) << "the trained length";
  EXPECT_EQ(settings("memory:window=8192:memory-window=full").memory.memory_window, 8192U);
  EXPECT_EQ(settings("memory:window=1024:memory-window=256").memory.memory_window, 256U);
  EXPECT_EQ(settings("memory:overlap=100").memory.overlap, 100U);
  const MemorySettings sliding = settings("sliding:sliding=1000:sinks=8").memory;
  EXPECT_EQ(sliding.sliding_window, 1000U);
  EXPECT_EQ(sliding.sinks, 8U);
  EXPECT_EQ(sliding.window, 8192U);
  EXPECT_EQ(settings("sliding").memory.sliding_window, 512U);
  EXPECT_EQ(settings("sliding").memory.sinks, 4U);
  EXPECT_EQ(settings("capped").memory.capped_distance, 1024U);
  EXPECT_EQ(settings("capped:distance=100").memory.capped_distance, 100U);
  EXPECT_EQ(settings("none").memory.sliding_window, 0U);
  EXPECT_EQ(settings("dynamic-ntk:mode=inconsistent").memory.dynamic_mode, DynamicMode::inconsistent);
  EXPECT_EQ(settings("dynamic-ntk").memory.dynamic_mode, DynamicMode::consistent);
  EXPECT_THAT(error("none:sliding=100"), HasSubstr("key sliding: expected a method that uses it"));
  EXPECT_THAT(error("yarn:distance=100"), HasSubstr("key distance"));
  EXPECT_THAT(error("sliding+capped"), HasSubstr("method sliding+capped"));
  EXPECT_THAT(error("memory:overlap=512"), HasSubstr("method memory:overlap=512"));
}

TEST_F(Methods, KeepWhatTheFlagsSaidUnlessTheirWindowIsAnother) {
  base_.overlap = 64;
  base_.memory_window = 256;
  EXPECT_EQ(settings("memory").memory.overlap, 64U);
  EXPECT_EQ(settings("memory").memory.memory_window, 256U);
  EXPECT_EQ(settings("memory:overlap=0").memory.overlap, 0U);
  EXPECT_EQ(settings("yarn").memory.overlap, 0U);
  EXPECT_EQ(settings("memory+yarn").memory.memory_window, 2048U);
}

TEST_F(Methods, TakeTheFlagsDynamicModeUnlessTheyHaveOne) {
  base_.window = base_.memory_window = 4096;
  base_.rope.method = RopeMethod::dynamic_ntk;
  base_.rope.factor = 2;
  base_.dynamic_mode = DynamicMode::inconsistent;
  EXPECT_EQ(settings("none").memory.dynamic_mode, DynamicMode::inconsistent);
  EXPECT_EQ(settings("dynamic-yarn:mode=whole-sequence").memory.dynamic_mode, DynamicMode::whole_sequence);
}

TEST_F(Methods, SayWhatIsWrong) {
  EXPECT_THAT(error("magic"), HasSubstr("method magic: expected memory, sliding, capped, none, base"));
  EXPECT_THAT(error(""), HasSubstr("found ''"));
  EXPECT_THAT(error("memory+memory"), HasSubstr("memory once"));
  EXPECT_THAT(error("yarn+linear"), HasSubstr("found 'linear' as well"));
  EXPECT_THAT(error("yarn:factor"), HasSubstr("expected key=value after each ':', found 'factor'"));
  EXPECT_THAT(error("yarn:speed=9"), HasSubstr("key speed"));
  EXPECT_THAT(error("memory:factor=4"), HasSubstr("key factor: expected a RoPE scaling"));
  EXPECT_THAT(error("none:window=0"), HasSubstr("method none:window=0: key window"));
  EXPECT_THAT(error("none:window=-1"), HasSubstr("found '-1'"));
  EXPECT_THAT(error("none:window=1"), HasSubstr("key window: expected a whole number from 2"));
  EXPECT_EQ(error("yarn:factor=x"), "method yarn:factor=x: factor: expected a number, found 'x'");
  EXPECT_EQ(error("memory+yarn:factor=x:window=99"),
            "method memory+yarn:factor=x:window=99: yarn:factor=x: factor: expected a number, found 'x'");
  EXPECT_EQ(error("memory:memory-rope=linear/factor=x"),
            "method memory:memory-rope=linear/factor=x: memory-rope linear:factor=x: factor: expected a number, found "
            "'x'");
  EXPECT_THAT(error("none:window=1:window=2"), HasSubstr("found twice"));
  EXPECT_THAT(error("yarn:mode=recompute"), HasSubstr("key mode"));
  EXPECT_THAT(error("memory+dynamic-ntk:mode=recompute"), HasSubstr("without memory"));
  EXPECT_THAT(error("dynamic-ntk:mode=odd"), HasSubstr("found 'odd'"));
  EXPECT_THAT(error("yarn:factor=0"), HasSubstr("yarn:factor=0"));
  EXPECT_THAT(error("linear:beta-fast=1"), HasSubstr("beta-fast"));
  EXPECT_THAT(error("none:last-context=9"), HasSubstr("key last-context: expected a method that uses it"));
}

TEST_F(Methods, WithMemoryNeedMemoryLayers) {
  base_.mem_layers.clear();
  EXPECT_THAT(error("memory+yarn"), HasSubstr("--mem-layers"));
  EXPECT_EQ(error("yarn"), "");
}

}  // namespace
}  // namespace memlane::testing
