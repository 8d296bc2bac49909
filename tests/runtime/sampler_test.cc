#include "runtime/sampler.h"

#include <gmock/gmock.h>

#include <cmath>

#include "tests/runtime/test_files.h"

namespace memlane {
namespace {

using Logits = std::vector<float>;
using Ids = std::vector<std::int32_t>;

CpuExec& exec() {
  static CpuExec one(1);
  return one;
}

/// The first token of a sampler of its own.
std::int32_t first_sample(const SamplerOptions& options, const Logits& logits, const Ids& seen = {}) {
  Sampler sampler(options);
  sampler.see(seen);
  return sampler.sample(exec(), logits);
}

/// How often each token comes in `count` draws.
std::vector<double> frequencies(const SamplerOptions& options, const Logits& logits, int count) {
  Sampler sampler(options);
  std::vector<double> result(logits.size());
  for (int i = 0; i < count; ++i) result[static_cast<std::size_t>(sampler.sample(exec(), logits))] += 1.0 / count;
  return result;
}

std::vector<double> softmax(const Logits& logits, double temperature) {
  std::vector<double> result;
  double total = 0;
  for (const float x : logits) total += std::exp(x / temperature);
  for (const float x : logits) result.push_back(std::exp(x / temperature) / total);
  return result;
}

void expect_near(const std::vector<double>& found, const std::vector<double>& expected, double tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], tolerance + 1e-12) << "token " << i;
}

TEST(Sampler, IsGreedyByDefaultAndOfEqualTokensTakesTheFirst) {
  EXPECT_EQ(first_sample({}, {1, 3, 2}), 1);
  EXPECT_EQ(first_sample({}, {1, 3, 3}), 1);
  EXPECT_EQ(first_sample({}, {-5}), 0);
}

// 40,000 draws: four standard deviations of a frequency are at most 0.01.
TEST(Sampler, DrawsFromTheSoftmaxAtItsTemperature) {
  const Logits logits = {0.0F, 1.0F, 2.0F, -1.0F, 0.5F};
  for (const float temperature : {0.5F, 1.0F, 2.0F}) {
    expect_near(frequencies({.temperature = temperature, .seed = 5}, logits, 40000), softmax(logits, temperature),
                0.01);
  }
}

TEST(Sampler, TopKKeepsTheMostLikely) {
  const auto found = frequencies({.temperature = 1, .top_k = 2, .seed = 6}, {0, 2, 1, -1}, 40000);
  const double e = std::exp(1.0);
  expect_near(found, {0, e / (e + 1), 1 / (e + 1), 0}, 0.01);
  expect_near(frequencies({.temperature = 1, .top_k = 1}, {1, 1, 0}, 100), {1, 0, 0}, 0);
}

// Probabilities 0.5, 0.3, 0.15, 0.05: the fewest tokens that reach p stay.
TEST(Sampler, TopPKeepsTheFewestTokensThatReachIt) {
  const Logits logits = {std::log(0.05F), std::log(0.5F), std::log(0.15F), std::log(0.3F)};
  expect_near(frequencies({.temperature = 1, .top_p = 0.45F, .seed = 7}, logits, 1000), {0, 1, 0, 0}, 0);
  expect_near(frequencies({.temperature = 1, .top_p = 0.75F, .seed = 7}, logits, 40000), {0, 0.625, 0, 0.375}, 0.01);
  expect_near(frequencies({.temperature = 1, .top_p = 1, .seed = 7}, logits, 40000), {0.05, 0.5, 0.15, 0.3}, 0.01);
  expect_near(frequencies({.temperature = 1, .top_p = 1e-6F, .seed = 7}, logits, 100), {0, 1, 0, 0}, 0);
}

TEST(Sampler, TopPIsMeasuredAmongTheTopK) {
  const Logits logits = {std::log(0.4F), std::log(0.3F), std::log(0.2F), std::log(0.1F)};
  // Among the top two, the first has 4/7 of the probability: more than 0.55, though only 0.4 of all.
  expect_near(frequencies({.temperature = 1, .top_k = 2, .top_p = 0.55F, .seed = 8}, logits, 1000), {1, 0, 0, 0}, 0);
}

TEST(Sampler, PenalisesEachSeenTokenOnce) {
  const SamplerOptions options = {.repetition_penalty = 2};
  EXPECT_EQ(first_sample(options, {3, 2}, {0}), 1) << "3 becomes 1.5";
  EXPECT_EQ(first_sample(options, {3, 1}, {0, 0, 0}), 0) << "once, however often it was seen";
  EXPECT_EQ(first_sample(options, {-1, -1.5F}, {0}), 1) << "-1 becomes -2";
  EXPECT_EQ(first_sample(options, {3, 2}), 0);
  Sampler sampler(options);
  sampler.see(Ids{0});
  sampler.see(Ids{1});
  EXPECT_EQ(sampler.sample(exec(), Logits{3, 2.5F, 2}), 2) << "what was seen before stays seen";
}

TEST(Sampler, SameSeedGivesTheSameTokensAndAnotherSeedOthers) {
  const Logits logits(50, 0.0F);
  const auto draw = [&](std::uint64_t seed) {
    Sampler sampler({.temperature = 1, .seed = seed});
    Ids ids(40);
    for (std::int32_t& id : ids) id = sampler.sample(exec(), logits);
    return ids;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
}

TEST(Sampler, BecomesGreedyAsTheTemperatureFalls) {
  for (const float temperature : {1e-3F, 1e-20F, 1e-38F, 1e-44F}) {
    expect_near(frequencies({.temperature = temperature}, {5, 9, 8, -3}, 50), {0, 1, 0, 0}, 0);
  }
}

TEST(Sampler, DrawsEvenlyAsTheTemperatureRises) {
  expect_near(frequencies({.temperature = 1e30F, .seed = 3}, {5, 9, 8, -3}, 40000), {0.25, 0.25, 0.25, 0.25}, 0.01);
}

TEST(Sampler, StandsLogitsOfAnySize) {
  expect_near(frequencies({.temperature = 1}, {3e38F, -3e38F, 0}, 50), {1, 0, 0}, 0);
  expect_near(frequencies({.temperature = 1}, {1, -INFINITY, -INFINITY}, 50), {1, 0, 0}, 0);
  expect_near(frequencies({.temperature = 1, .top_p = 0.9F}, {1, INFINITY, 3e38F}, 50), {0, 1, 0}, 0);
  EXPECT_EQ(first_sample({}, {-INFINITY, -INFINITY}), 0);
  EXPECT_EQ(first_sample({}, {-0.0F, 0.0F}), 0) << "they are equal";
}

TEST(Sampler, RefusesLogitsThatAreNoNumbers) {
  Logits logits(1000, 0.0F);
  for (std::size_t i = 0; i < logits.size(); i += 3) logits[i] = NAN;
  for (const float temperature : {0.0F, 1.0F}) {
    Sampler sampler({.temperature = temperature});
    EXPECT_THAT(input_error_of([&] { sampler.sample(exec(), logits); }), ::testing::HasSubstr("found NaN"));
  }
}

TEST(SamplerOptions, AreRefusedOutsideTheirRangeByName) {
  const auto refused = [](SamplerOptions options) { return input_error_of([&] { options.check(); }); };
  EXPECT_EQ(refused({}), "");
  for (const float x : {-1.0F, NAN, INFINITY})
    EXPECT_THAT(refused({.temperature = x}), ::testing::HasSubstr("--temperature"));
  for (const float x : {-0.1F, 0.0F, 1.1F, NAN}) EXPECT_THAT(refused({.top_p = x}), ::testing::HasSubstr("--top-p"));
  for (const float x : {0.0F, -1.0F, NAN, INFINITY}) {
    EXPECT_THAT(refused({.repetition_penalty = x}), ::testing::HasSubstr("--repetition-penalty"));
  }
  EXPECT_THROW(Sampler({.top_p = 2}), InputError);
}

}  // namespace
}  // namespace memlane
