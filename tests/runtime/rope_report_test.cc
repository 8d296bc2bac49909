// What the linter finds in a scaling.

#include "runtime/rope_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace memlane {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr RopeUse kLong = {.head_dim = 128, .length = 8192};

RopeScaling scaled(const std::string& text) {
  return parse_rope_scaling("--rope", text, {.original_length = 2048});
}

std::vector<std::string> warnings(const std::string& text, const RopeUse& use = kLong) {
  return rope_report(scaled(text), use).warnings;
}

TEST(RopeReport, BandsFollowTheRamp) {
  const RopeReport report = rope_report(scaled("yarn:factor=4"), kLong);
  ASSERT_TRUE(report.ramp.has_value());
  EXPECT_EQ(report.ramp->low, 16);
  EXPECT_EQ(report.ramp->high, 41);
  for (std::size_t i = 0; i < 64; ++i) {
    const RopeBand expected = i <= 16 ? RopeBand::unscaled : i >= 41 ? RopeBand::interpolated : RopeBand::blended;
    EXPECT_EQ(report.pairs[i].band, expected) << i;
  }
  EXPECT_NEAR(report.pairs[0].wavelength, 6.283185, 1e-6);
  EXPECT_NEAR(report.pairs[0].turns, 8192 / 6.283185, 1e-3);
  EXPECT_NEAR(report.pairs[63].wavelength / report.pairs[63].unscaled_wavelength, 4, 1e-9);
  EXPECT_FALSE(rope_report(scaled("linear:factor=4"), kLong).ramp.has_value());
}

TEST(RopeReport, AnUnscaledModelWithinItsContextIsFine) {
  EXPECT_THAT(warnings("none", {.head_dim = 128, .length = 2048}), IsEmpty());
  EXPECT_THAT(warnings("none"), Contains(HasSubstr("8192 tokens are more than the 2048 of training")));
}

TEST(RopeReport, SaysWhereAScalingHurts) {
  const RopeUse within = {.head_dim = 128, .length = 2048};
  EXPECT_THAT(warnings("yarn:factor=4", within), Contains(HasSubstr("a factor of 4 can only hurt")));
  EXPECT_THAT(warnings("yarn:factor=4"), Not(Contains(HasSubstr("can only hurt"))));
  EXPECT_THAT(warnings("yarn:factor=2"), Contains(HasSubstr("more than factor x original length, 4096")));
  EXPECT_THAT(warnings("yarn:factor=4"), Contains(HasSubstr("static YaRN scales short texts")));
  EXPECT_THAT(warnings("linear:factor=8"), Contains(HasSubstr("neighbouring tokens")));
  EXPECT_THAT(warnings("ntk-aware:factor=8"), Contains(HasSubstr("the base 82684.6")));
  EXPECT_THAT(warnings("dynamic-ntk:factor=8"), Contains(HasSubstr("s = 8 gives 57 at 8 x")));
}

TEST(RopeReport, SaysWhereOtherRuntimesDiffer) {
  EXPECT_THAT(warnings("yarn:factor=4"), Contains(HasSubstr("definition 2 of the YaRN paper")));
  EXPECT_THAT(warnings("ntk-by-parts-paper:factor=4"), Contains(HasSubstr("no other runtime has it")));
  EXPECT_THAT(warnings("yarn:factor=4:truncate=false"), Contains(HasSubstr("truncate=false")));
  EXPECT_THAT(
      warnings("yarn:factor=4:mscale=1:mscale-all-dim=1"),
      Contains(HasSubstr("give the attention factor 1, as in transformers; runtimes that do not read them use 1.13")));
  EXPECT_THAT(warnings("yarn:factor=4:mscale=1"), Contains(HasSubstr("mscale alone has no effect")));
  EXPECT_THAT(warnings("yarn:factor=4:attention-factor=1"), Contains(HasSubstr("so there it must be 0.878")));
  EXPECT_THAT(warnings("dynamic-yarn"), Contains(HasSubstr("cache rotated keys")));
  EXPECT_THAT(warnings("dynamic-yarn:factor=4"), Contains(HasSubstr("is 4 for short texts, too")));
  EXPECT_THAT(warnings("dynamic-linear"), Contains(HasSubstr("have no dynamic-linear")));
  RopeUse given = kLong;
  given.unused_factor = 4;
  EXPECT_THAT(warnings("dynamic-linear", given), Contains(HasSubstr("factor 4 is not used")));
  RopeUse config = kLong;
  config.max_position_embeddings = 16384;
  EXPECT_THAT(warnings("yarn:factor=4", config), Contains(HasSubstr("original_max_position_embeddings = 8")));
}

TEST(RopeReport, CountsThePairsThatMemoryKeysMatchBy) {
  RopeUse memory = kLong;
  memory.memory = true;
  const RopeReport report = rope_report(scaled("none"), memory);
  // 10000^(-i/64) * 8192 < 0.5 from i = 64 ln(16384) / ln(10000) = 67.4 on: none.
  EXPECT_EQ(report.still_pairs, 0U);
  EXPECT_THAT(report.warnings, Contains(HasSubstr("0 of 64 pairs turn less than half a radian")));
  memory.length = 64;  // from i = 64 ln(128) / ln(10000) = 33.7 on
  EXPECT_EQ(rope_report(scaled("none"), memory).still_pairs, 30U);
  EXPECT_THAT(rope_report(scaled("none"), memory).warnings, IsEmpty());
  EXPECT_THAT(warnings("yarn:factor=4", memory), Contains(HasSubstr("square of the attention factor, 1.29")));
}

}  // namespace
}  // namespace memlane
