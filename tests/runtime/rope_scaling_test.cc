// RoPE scalings against recorded values of the public YaRN code, against numbers that papers and formulas give, and
// their text form.

#include "runtime/rope_scaling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <set>

#include "runtime/rope.h"
#include "tests/runtime/test_files.h"

namespace memlane {
namespace {

using nlohmann::json;
using testing::HasSubstr;

RopeScaling parse(const std::string& text, const RopeScaling& base = {.original_length = 2048}) {
  return parse_rope_scaling("--rope", text, base);
}

std::string parse_error(const std::string& text) {
  return input_error_of([&] { parse(text); });
}

double relative_error(double found, double expected) {
  return std::abs(found - expected) / std::abs(expected);
}

TEST(RopeScaling, EveryMethodMatchesTheRecordedValues) {
  const json golden = json::parse(read_text(source_dir() / "tests/golden/rope/rope_scaling.json"));
  ASSERT_GT(golden.at("cases").size(), 100U);
  std::set<std::string> methods;
  for (const json& each : golden.at("cases")) {
    const std::string method = each.at("method");
    SCOPED_TRACE(method);
    methods.insert(method);
    RopeScaling scaling = parse(method == "dynamic-linear" ? method : method + ":factor=1");
    scaling.theta = each.at("rope_theta");
    scaling.factor = each.at("factor");
    scaling.original_length = each.at("original_max_position_embeddings");
    const std::size_t head_dim = each.at("head_dim");
    const RopeFrequencies found = rope_frequencies(scaling, head_dim, each.value("sequence_length", 1U));
    const std::vector<double> expected = each.at("inv_freq");
    ASSERT_EQ(found.inv_freq.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_LE(relative_error(found.inv_freq[i], expected[i]), 1e-6) << "pair " << i << " of head_dim " << head_dim;
    }
    EXPECT_LE(relative_error(found.attention_factor, each.at("attention_factor")), 1e-6);
  }
  EXPECT_EQ(methods.size(), 7U);
}

TEST(RopeScaling, YarnRampsLieWhereEveryRuntimeHasThem) {
  struct Case {
    std::size_t head_dim;
    double theta;
    std::size_t original;
    double low, high;
  };
  for (const Case& each : {Case{128, 1e4, 2048, 16, 41}, Case{128, 1e4, 4096, 20, 46}, Case{128, 1e4, 8192, 25, 50},
                           Case{100, 1e4, 2048, 12, 32}, Case{64, 1e4, 2048, 8, 21}, Case{128, 1e6, 4096, 13, 31},
                           Case{128, 5e5, 8192, 18, 35}}) {
    RopeScaling yarn{.method = RopeMethod::yarn, .theta = each.theta, .factor = 4, .original_length = each.original};
    EXPECT_EQ(yarn_ramp(yarn, each.head_dim).low, each.low);
    EXPECT_EQ(yarn_ramp(yarn, each.head_dim).high, each.high);
    yarn.truncate = false;
    const RopeRamp exact = yarn_ramp(yarn, each.head_dim);
    EXPECT_TRUE(exact.low > each.low && exact.low < each.low + 1) << exact.low;
    EXPECT_TRUE(exact.high > each.high - 1 && exact.high < each.high) << exact.high;
  }
}

TEST(RopeScaling, ARampOfOnePairHasAnEnd) {
  // Both ends are pair 0: theta is so large that even the second pair does not turn once.
  const RopeScaling yarn{.method = RopeMethod::yarn, .theta = 1e30, .factor = 4, .original_length = 5};
  const RopeFrequencies found = rope_frequencies(yarn, 8, 5);
  EXPECT_DOUBLE_EQ(found.inv_freq[0], 1);
  EXPECT_DOUBLE_EQ(found.inv_freq[1], std::pow(1e30, -0.25) / 4);
}

TEST(RopeScaling, NtkBasesAreThoseOfTheFormula) {
  for (const auto& [head_dim, factor, base] :
       {std::tuple(128, 2.0, 20221.3), std::tuple(128, 4.0, 40889.9), std::tuple(128, 8.0, 82684.6),
        std::tuple(100, 2.0, 20284.9), std::tuple(100, 4.0, 41147.8), std::tuple(100, 8.0, 83468.1)}) {
    const RopeScaling ntk{.method = RopeMethod::ntk_aware, .factor = factor};
    EXPECT_NEAR(effective_base(ntk, static_cast<std::size_t>(head_dim), 1), base, 0.05);
  }
  for (const auto& [factor, length, base] :
       {std::tuple(1.0, 4096, 20221.3), std::tuple(2.0, 4096, 30527.7), std::tuple(2.0, 8192, 72195.9),
        std::tuple(8.0, 16384, 607779.0), std::tuple(8.0, 2048, 10000.0), std::tuple(8.0, 100, 10000.0)}) {
    const RopeScaling ntk{.method = RopeMethod::dynamic_ntk, .factor = factor, .original_length = 2048};
    EXPECT_NEAR(effective_base(ntk, 128, static_cast<std::size_t>(length)) / base, 1, 1e-5);
  }
}

TEST(RopeScaling, NtkKeepsTheFirstPairAndInterpolatesTheLastExactly) {
  for (const std::size_t head_dim : {4U, 64U, 100U}) {
    const RopeFrequencies plain = rope_frequencies({}, head_dim, 1);
    const RopeFrequencies ntk = rope_frequencies({.method = RopeMethod::ntk_aware, .factor = 8}, head_dim, 1);
    EXPECT_DOUBLE_EQ(ntk.inv_freq.front(), 1);
    EXPECT_NEAR(plain.inv_freq.back() / ntk.inv_freq.back(), 8, 1e-9);
  }
  EXPECT_DOUBLE_EQ(rope_frequencies({.method = RopeMethod::ntk_aware, .factor = 8}, 2, 1).inv_freq[0], 1);
}

TEST(RopeScaling, ByPartsOfThePaperRampsInTurns) {
  const RopeScaling paper{.method = RopeMethod::ntk_by_parts_paper, .factor = 4, .original_length = 2048};
  const RopeFrequencies plain = rope_frequencies({}, 128, 1);
  const RopeFrequencies found = rope_frequencies(paper, 128, 1);
  EXPECT_EQ(found.attention_factor, 1);
  int blended = 0;
  for (std::size_t i = 0; i < 64; ++i) {
    const double turns = 2048 * plain.inv_freq[i] / (2 * std::numbers::pi);
    const double ratio = found.inv_freq[i] / plain.inv_freq[i];
    if (turns >= 32) {
      EXPECT_DOUBLE_EQ(ratio, 1);
    } else if (turns <= 1) {
      EXPECT_DOUBLE_EQ(ratio, 0.25);
    } else {
      EXPECT_NEAR(ratio, 0.25 + 0.75 * (turns - 1) / 31, 1e-12);
      ++blended;
    }
  }
  EXPECT_GT(blended, 10);
}

// The values of Llama 3.1: head_dim 128, base 500000, L 8192, factor 8, low 1, high 4.
TEST(RopeScaling, Llama3BlendsBetweenItsWavelengths) {
  RopeScaling llama3{.method = RopeMethod::llama3, .theta = 5e5, .factor = 8, .original_length = 8192};
  const RopeFrequencies plain = rope_frequencies({.theta = 5e5}, 128, 1);
  const RopeFrequencies found = rope_frequencies(llama3, 128, 1);
  for (std::size_t i = 0; i < 64; ++i) {
    const double wavelength = 2 * std::numbers::pi / plain.inv_freq[i];
    double expected = plain.inv_freq[i];
    if (wavelength > 8192) {
      expected /= 8;
    } else if (wavelength >= 2048) {
      const double smooth = (8192 / wavelength - 1) / 3;
      expected = (1 - smooth) * expected / 8 + smooth * expected;
    }
    EXPECT_LE(relative_error(found.inv_freq[i], expected), 1e-12) << i;
  }
  EXPECT_EQ(found.attention_factor, 1);
}

TEST(RopeScaling, LongropeChoosesItsListByTheLength) {
  const RopeScaling longrope{.method = RopeMethod::longrope,
                             .factor = 32,
                             .original_length = 4096,
                             .short_factor = {1, 1.5},
                             .long_factor = {2, 40}};
  EXPECT_DOUBLE_EQ(rope_frequencies(longrope, 4, 4096).inv_freq[1], 0.01 / 1.5);
  EXPECT_DOUBLE_EQ(rope_frequencies(longrope, 4, 4097).inv_freq[1], 0.01 / 40);
  EXPECT_DOUBLE_EQ(rope_frequencies(longrope, 4, 4097).inv_freq[0], 0.5);
  EXPECT_NEAR(rope_frequencies(longrope, 4, 1).attention_factor, 1.190238, 1e-6);  // sqrt(1 + 5/12)
}

TEST(RopeScaling, AttentionFactorsFollowTheFlavour) {
  const auto factor = [](const std::string& text) { return rope_frequencies(parse(text), 64, 1).attention_factor; };
  EXPECT_NEAR(factor("yarn:factor=4"), 1.138629, 1e-6);
  EXPECT_NEAR(factor("yarn:factor=32"), 1.346574, 1e-6);
  EXPECT_EQ(factor("yarn:factor=1"), 1);
  EXPECT_EQ(factor("yarn:factor=4:attention-factor=1.5:mscale=1:mscale-all-dim=1"), 1.5);
  EXPECT_EQ(factor("yarn:factor=4:mscale=1:mscale-all-dim=1"), 1);
  EXPECT_NEAR(factor("yarn:factor=40:mscale=1:mscale-all-dim=0.707"), 1.368888 / 1.260804, 1e-6);
  EXPECT_NEAR(factor("yarn:factor=4:mscale=0.7"), 1.138629, 1e-6) << "one of the two alone is not used";
  EXPECT_NEAR(factor("yarn:factor=4:mscale=1:mscale-all-dim=0"), 1.138629, 1e-6);
  EXPECT_EQ(factor("ntk-by-parts:factor=4"), 1);
  EXPECT_EQ(factor("linear:factor=4:attention-factor=1.1"), 1.1);
}

TEST(RopeScaling, OnlyDynamicMethodsAndLongropeDependOnTheLength) {
  for (const std::string method : {"none", "linear:factor=2", "ntk-aware:factor=2", "ntk-by-parts:factor=2",
                                   "ntk-by-parts-paper:factor=2", "yarn:factor=2", "llama3:factor=2"}) {
    EXPECT_FALSE(depends_on_length(parse(method))) << method;
    EXPECT_EQ(rope_frequencies(parse(method), 16, 1), rope_frequencies(parse(method), 16, 10000)) << method;
  }
  for (const std::string method : {"dynamic-ntk", "dynamic-linear", "dynamic-yarn"}) {
    const RopeScaling scaling = parse(method);
    EXPECT_TRUE(depends_on_length(scaling));
    EXPECT_EQ(rope_frequencies(scaling, 16, 2048), rope_frequencies(parse("none"), 16, 1)) << method;
    EXPECT_NE(rope_frequencies(scaling, 16, 4096), rope_frequencies(scaling, 16, 2048)) << method;
  }
}

// The numbers of the mathematical library, to the last bit, on both sides of the angle where its own functions take
// over.
TEST(RopeTables, AreTheCosinesAndSinesOfFloat32Angles) {
  const RopeFrequencies by = rope_frequencies(parse("yarn:factor=4"), 64, 1);
  for (const std::size_t first : {std::size_t{0}, std::size_t{90000}, std::size_t{520000}, std::size_t{1} << 24}) {
    const RopeTable table(by, first, first + 9000);
    std::size_t different = 0;
    for (std::size_t row = 0; row < 9000; ++row) {
      for (std::size_t i = 0; i < 32; ++i) {
        const auto angle = static_cast<double>(static_cast<float>(first + row) * static_cast<float>(by.inv_freq[i]));
        different +=
            table.cosines()[row].data()[i] != static_cast<float>(std::cos(angle) * by.attention_factor) ? 1 : 0;
        different += table.sines()[row].data()[i] != static_cast<float>(std::sin(angle) * by.attention_factor) ? 1 : 0;
      }
    }
    EXPECT_EQ(different, 0U) << first;
  }
}

TEST(RopeScalingText, IsReadBackAsItWas) {
  for (const std::string text :
       {"none", "none:theta=5e5", "base:theta=1e6", "linear:factor=2.5", "ntk-aware:factor=8:attention-factor=1.25",
        "ntk-by-parts:factor=4:truncate=false", "ntk-by-parts-paper:factor=4:beta-fast=16:beta-slow=0.5",
        "yarn:factor=4:original-length=4096:mscale=0.7:mscale-all-dim=1", "dynamic-ntk:factor=2", "dynamic-linear",
        "dynamic-yarn:theta=0.1e7", "llama3:factor=8:low-freq-factor=1.5:high-freq-factor=5:original-length=8192",
        "longrope:factor=4:short-factor=1,1.0123456789:long-factor=3,4.5"}) {
    const RopeScaling scaling = parse(text);
    EXPECT_EQ(parse(to_text(scaling)), scaling) << to_text(scaling);
    EXPECT_EQ(to_text(parse(to_text(scaling))), to_text(scaling));
  }
}

TEST(RopeScalingText, LeavesOutWhatDoesNotMatter) {
  EXPECT_EQ(to_text({.factor = 7, .original_length = 99}), to_text({}));
  EXPECT_EQ(to_text({.method = RopeMethod::linear, .factor = 2, .original_length = 99}),
            to_text({.method = RopeMethod::linear, .factor = 2}));
  EXPECT_NE(to_text({.theta = 2e4}), to_text({}));
}

TEST(RopeScalingText, TakesWhatIsNotSaidFromItsBase) {
  const RopeScaling config{
      .method = RopeMethod::yarn, .theta = 5e5, .factor = 16, .original_length = 4096, .beta_fast = 64};
  EXPECT_EQ(parse("yarn", config), config);
  EXPECT_EQ(parse("yarn:factor=2", config).beta_fast, 64);
  const RopeScaling other = parse("ntk-by-parts:factor=2", config);
  EXPECT_EQ(other.theta, 5e5);
  EXPECT_EQ(other.original_length, 4096U);
  EXPECT_EQ(other.beta_fast, 32) << "what belongs to another method is not taken";
  EXPECT_EQ(parse("none", config).theta, 5e5);
}

TEST(RopeScalingText, AFactorThatIsNotSaidFollowsFromTheWindow) {
  const RopeScaling base{.original_length = 2048};
  EXPECT_EQ(parse_rope_scaling("--rope", "yarn", base, 8192).factor, 4);
  EXPECT_EQ(parse_rope_scaling("--rope", "yarn:original-length=1024", base, 8192).factor, 8);
  EXPECT_EQ(parse_rope_scaling("--rope", "linear:factor=auto", base, 100).factor, 1);
  EXPECT_EQ(parse_rope_scaling("--rope", "dynamic-yarn", base, 8192).factor, 1);
  EXPECT_THAT(parse_error("yarn"), HasSubstr("--rope yarn: expected a factor"));
}

TEST(RopeScalingText, NamesWhatIsWrong) {
  EXPECT_THAT(parse_error(""), HasSubstr("expected a RoPE method first (none, linear"));
  EXPECT_THAT(parse_error("yearn:factor=4"), HasSubstr("found 'yearn'"));
  EXPECT_THAT(parse_error("yarn:factr=4"), HasSubstr("'factr'"));
  EXPECT_THAT(parse_error("linear:factor=4:beta-fast=3"), HasSubstr("'beta-fast', which it does not use"));
  EXPECT_THAT(parse_error("yarn:factor=4:factor=5"), HasSubstr("factor: expected once"));
  for (const char* value : {"", "x", "1x", "nan", "inf", "1e999", "-"}) {
    EXPECT_THAT(parse_error(std::string("linear:factor=") + value), HasSubstr("factor: expected a number")) << value;
  }
  EXPECT_THAT(parse_error("yarn:factor=4:original-length=-1"), HasSubstr("original-length: expected a whole number"));
  EXPECT_THAT(parse_error("yarn:factor=4:truncate=maybe"), HasSubstr("truncate: expected true or false"));
  EXPECT_THAT(parse_error("longrope:factor=2:short-factor=1,,2"), HasSubstr("short-factor: expected a number"));
  EXPECT_THAT(parse_error("base"), HasSubstr("expected a theta"));
}

TEST(RopeScaling, RefusesNumbersOutsideTheirRange) {
  const auto error = [](const std::string& text, std::size_t head_dim = 4) {
    return input_error_of([&] { check_rope_scaling(parse(text), head_dim, "--rope"); });
  };
  EXPECT_EQ(error("yarn:factor=4"), "");
  EXPECT_THAT(error("linear:factor=0.5"), HasSubstr("--rope: factor: expected a number from 1"));
  EXPECT_THAT(error("linear:factor=1e7"), HasSubstr("factor"));
  EXPECT_THAT(error("none:theta=0"), HasSubstr("theta"));
  EXPECT_THAT(error("none:theta=-5"), HasSubstr("theta"));
  EXPECT_THAT(error("yarn:factor=4:theta=1"), HasSubstr("theta: expected a number above"));
  EXPECT_THAT(error("yarn:factor=4:original-length=0"), HasSubstr("original length"));
  EXPECT_THAT(error("yarn:factor=4:attention-factor=0"), HasSubstr("attention factor"));
  EXPECT_THAT(error("yarn:factor=4:beta-fast=1"), HasSubstr("beta_fast: expected a number above beta_slow, 1"));
  EXPECT_THAT(error("llama3:factor=4:high-freq-factor=1"), HasSubstr("high_freq_factor"));
  EXPECT_THAT(error("longrope:factor=4:short-factor=1,1:long-factor=1"), HasSubstr("long_factor: expected 2 numbers"));
  EXPECT_THAT(error("longrope:factor=4:short-factor=1,0:long-factor=1,1"), HasSubstr("short_factor"));
}

}  // namespace
}  // namespace memlane
