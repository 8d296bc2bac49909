// The format of weights, through the command.

#include "tests/apps/command_test.h"

namespace memlane {
namespace {

class WeightsOption : public CommandTest {
 protected:
  std::vector<float> logits_with(const std::string& name, const Words& flags) const {
    const Words words = {"--model", stories(), "--text", "Once upon a time there was a dog", "--mem-layers", "none"};
    return logits(name, words + flags).floats("logits");
  }
};

TEST_F(WeightsOption, OfTheTypeOfComputeChangesNothing) {
  EXPECT_EQ(logits_with("plain", {}), logits_with("same", {"--weights", "float32"}));
}

TEST_F(WeightsOption, ChangesEveryFormatsLogits) {
  const std::vector<float> plain = logits_with("plain", {});
  std::vector<std::vector<float>> found;
  for (const std::string format : {"bfloat16", "int8", "int4"}) {
    found.push_back(logits_with(format, {"--weights", format}));
    double squares = 0;
    for (std::size_t i = 0; i < plain.size(); ++i) {
      ASSERT_TRUE(std::isfinite(found.back()[i]));
      squares += (found.back()[i] - plain[i]) * (found.back()[i] - plain[i]);
    }
    EXPECT_GT(squares, 0) << format;
    EXPECT_LE(std::sqrt(squares / static_cast<double>(plain.size())), format == "int4" ? 2.0 : 0.3) << format;
  }
  EXPECT_NE(found[1], found[2]);
}

TEST_F(WeightsOption, AreRecordedInTheMemoryTakenFromItAndNeverMixed) {
  const std::string document = write("a.txt", story(200, 1));
  ingest("m", {document}, {"--weights", "int8"});
  EXPECT_EQ(json_of({"info", path("m"), "--json"}).at("weights"), "int8");
  EXPECT_EQ(ask("m", "Once"), ask("m", "Once", {"--weights", "int8"}));
  for (const std::string other : {"float32", "bfloat16", "int4"}) {
    expect_refused(ask_words("m", "Once", {"--weights", other}), {path("m"), "weights int8 in the file", other});
  }
  expect_refused(ingest_words("m", {"--mem-layers", "2,3", "--window", "64", "--weights", "int4", document}),
                 {path("m"), "weights int8 in the file, int4 asked for"});
}

TEST_F(WeightsOption, AreCountedInThePlan) {
  // Of a model whose formats differ by megabytes: what else is resident differs from run to run.
  const Words words = {"ingest",
                       "--model",
                       MEMLANE_SOURCE_DIR "/models/memlane-nano",
                       "--memory",
                       path("m"),
                       "--plan",
                       "--mem-layers",
                       "2",
                       "--json",
                       "--quiet",
                       write("a.txt", story(50, 1))};
  const auto plain = json_of(words).at("planned_memory_bytes").get<std::size_t>();
  const auto int8 = json_of(words + Words{"--weights", "int8"}).at("planned_memory_bytes").get<std::size_t>();
  const auto int4 = json_of(words + Words{"--weights", "int4"}).at("planned_memory_bytes").get<std::size_t>();
  constexpr std::size_t kParameters = 4'700'000;
  EXPECT_LT(int8 + kParameters / 2, plain);
  EXPECT_LT(int4 + kParameters / 8, int8);
}

}  // namespace
}  // namespace memlane
